"""AlpacaEval's annotation files: which of two answers a judge preferred."""

import json
from pathlib import Path
from typing import Any

# Ties are 0 in the files of version 1 and 1.5 in those of version 2.
PREFERENCES = {1: "A", 2: "B", 0: "tie", 1.5: "tie"}


def read_annotations(path: str | Path) -> list[dict[str, Any]]:
    """One dict per pair with the texts question, answer_a, answer_b and the verdict "A", "B" or "tie".

    Answer A is the file's output_1 (the baseline), answer B its output_2 (the system on the leaderboard).

    Raises:
      ValueError: no such file of JSON, or an entry without its columns; names file and entry.
    """
    path = Path(path)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected AlpacaEval annotations as JSON: {error}") from None
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path}: expected a list of annotations, found {type(rows).__name__}")
    return [_pair(path, number, row) for number, row in enumerate(rows)]


def _pair(path: Path, number: int, row: Any) -> dict[str, Any]:
    wanted = {"question": "instruction", "answer_a": "output_1", "answer_b": "output_2"}
    held = row if isinstance(row, dict) else {}
    wrong = [column for column in wanted.values() if not isinstance(held.get(column), str)]
    if wrong or held.get("preference") not in PREFERENCES:
        raise ValueError(
            f"{path}, entry {number}: expected texts {list(wanted.values())} and a preference of "
            f"{list(PREFERENCES)}; it has {sorted(held)} with preference {held.get('preference')!r}"
        )
    return {name: row[column] for name, column in wanted.items()} | {"verdict": PREFERENCES[row["preference"]]}
