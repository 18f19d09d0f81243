"""What the cells of a sweep gave, as JSONL with everything and as a Markdown table with what matters."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.launch import task
from tools.launch.grid import Sweep
from tools.launch.sweep import outcome

_SHOWN = ("loss", "accuracy")
_MOST = 8


def collect(sweep: Sweep, results: str) -> list[dict[str, Any]]:
    """One record per cell: its settings, how it ended, and the numbers of its file `results` (in its --workdir).

    Of a log in JSONL the last value of each number counts, named `split/number`; of a JSON object every number.
    """
    rows = []
    for settings in sweep.cells():
        cell = sweep.cell(settings)
        ended = outcome(cell)
        figures = read_numbers(cell / "run" / results)
        rows.append({"cell": cell.name, "settings": dict(settings), **ended, "results": figures})
    return rows


def read_numbers(path: Path) -> dict[str, float]:
    """Name -> number of a JSON or JSONL file; {} where there is none.

    Raises:
      ValueError: a name of another ending.
    """
    if path.suffix == ".json":
        return _numbers(task.read(path))
    if path.suffix != ".jsonl":
        raise ValueError(f"results are read from .json or .jsonl, given {path.name!r}")
    found: dict[str, float] = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except ValueError:  # the last line of a cell that was killed
            continue
        split = record.pop("split", "")
        found |= _numbers(record, split)
    return found


def _numbers(value: Any, at: str = "") -> dict[str, float]:
    if isinstance(value, bool) or value is None or isinstance(value, str | list):
        return {}
    if not isinstance(value, Mapping):
        return {at: value}
    inner = (_numbers(one, f"{at}/{key}" if at else str(key)) for key, one in value.items())
    return {name: number for part in inner for name, number in part.items()}


def write(sweep: Sweep, results: str, show: Sequence[str] = ()) -> str:
    """Writes `table.jsonl` and `table.md` into the sweep's folder; the Markdown.

    show: names of results that become columns; none: losses and accuracies, else the first eight.

    Raises:
      ValueError: a name that no cell has.
    """
    rows = collect(sweep, results)
    names = list(dict.fromkeys(name for row in rows for name in row["results"]))
    if unknown := [name for name in show if name not in names]:
        raise ValueError(f"--show: no cell has {unknown}; have {names}")
    usual = [name for name in names if name.rpartition("/")[2] in _SHOWN]
    columns = list(show) or usual or names[:_MOST]
    keys = list(rows[0]["settings"])
    (sweep.folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = [
        [
            *(row["settings"][key] for key in keys),
            row["state"],
            f"{row['seconds']:.0f}" if "seconds" in row else "",
            *(_shown(row["results"].get(name)) for name in columns),
            row["message"],
        ]
        for row in rows
    ]
    text = _markdown([*keys, "state", "seconds", *columns, "message"], told)
    if "seed" in keys and len(sweep.seeds) > 1:
        text += "\nFinished cells, mean ± standard deviation over seeds:\n\n" + _over_seeds(rows, keys, columns)
    (sweep.folder / "table.md").write_text(text)
    return text


def _over_seeds(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], columns: Sequence[str]) -> str:
    others = [key for key in keys if key != "seed"]
    groups: dict[tuple[str, ...], list[Mapping[str, float]]] = {}
    for row in rows:
        group = groups.setdefault(tuple(row["settings"][key] for key in others), [])
        if row["state"] == "finished":
            group.append(row["results"])
    told = []
    for at, found in groups.items():
        cells = ([one[name] for one in found if name in one] for name in columns)
        told.append([*at, str(len(found)), *map(_spread, cells)])
    return _markdown([*others, "seeds", *columns], told)


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return _shown(values[0] if values else None)
    return f"{statistics.mean(values):.5g} ± {statistics.stdev(values):.2g}"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    clean = (
        ["".join(" " if c == "\n" else c for c in str(word)).replace("|", "\\|") for word in line] for line in lines
    )
    return "".join(f"| {' | '.join(line)} |\n" for line in clean)
