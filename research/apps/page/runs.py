"""The figures of training runs as they grow: what `metrics.jsonl` files below a folder hold."""

import json
import math
from pathlib import Path
from typing import Any

NAME = "metrics.jsonl"
PORTION = 1 << 20  # bytes of one answer


def found(folder: Path) -> list[str]:
    """The runs below a folder, by their paths in it; newest first."""
    files = sorted(folder.rglob(NAME), key=lambda path: -path.stat().st_mtime)
    return [str(path.parent.relative_to(folder)) for path in files]


def rows(folder: Path, run: str, begin: int = 0) -> dict[str, Any]:
    """The lines of a run from byte `begin` on, at most a portion of them, and where the next ones begin.

    A last line that is still being written is left for the next time. Numbers that JSON does not have are null.

    Raises:
      ValueError: there is no such run below the folder, or it does not reach that far.
    """
    path = (folder / run / NAME).resolve()
    if not path.is_file() or not path.is_relative_to(folder.resolve()):
        raise ValueError(f"no run {run!r}")
    if not 0 <= begin <= path.stat().st_size:
        raise ValueError(f"run {run!r} has {path.stat().st_size} bytes, asked for those from {begin} on")
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read(PORTION)
    data = data[: data.rfind(b"\n") + 1]
    lines = [json.loads(line) for line in data.splitlines() if line.strip()]
    finite = lambda x: None if isinstance(x, float) and not math.isfinite(x) else x  # noqa: E731
    return {"next": begin + len(data), "rows": [{k: finite(v) for k, v in line.items()} for line in lines]}
