"""Rows of benchmark files: found under a folder by any of their usual names, and checked column by column."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np

from research.apps.prompting import Item, Task
from research.data.files import read_examples
from research.data.tfds_source import TfdsExamples

Rows = list[tuple[str, dict[str, Any]]]  # where a row stands, for errors, and the row


def find(root: str | Path, patterns: Sequence[str]) -> Path:
    """The first file under `root` that fits a pattern, earlier patterns first.

    Raises:
      FileNotFoundError: names what was looked for.
    """
    for pattern in patterns:
        found = [path for path in sorted(Path(root).glob(pattern)) if path.is_file()]
        if found:
            return found[0]
    raise FileNotFoundError(f"no file {patterns[0]} under {root}; looked for {', '.join(patterns)}")


def read_table(
    path: Path,
    columns: Sequence[str],
    *,
    delimiter: str = "\t",
    header: Sequence[str] | None = None,
    skip_short: bool = False,
) -> Rows:
    """Rows of a table with a header line, or with the given `header` if the file has none.

    Tab-separated files hold no quotes (GLUE's way), others are CSV. skip_short: rows that lack columns are left out.

    Raises:
      ValueError: a column that the header or a row lacks, or no row; names file and line.
    """
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    rows: Rows = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, fieldnames=header, delimiter=delimiter, quoting=quoting)
        names = reader.fieldnames or []
        missing = [name for name in columns if name not in names]
        if missing:
            raise ValueError(f"{path}, line 1: no column {missing[0]!r}; it has {list(names)}")
        for row in reader:
            short = [name for name in columns if row[name] is None]
            if short and not skip_short:
                raise ValueError(f"{path}, line {reader.line_num}: no value for column {short[0]!r}")
            if not short:
                rows.append((f"{path}, line {reader.line_num}", row))
    if not rows:
        raise ValueError(f"{path} has no rows: expected columns {list(columns)}")
    return rows


def read_objects(path: Path, columns: Sequence[str]) -> Rows:
    """Objects of a JSON Lines file or a JSON list, each with `columns`.

    Raises:
      ValueError: an object without a column; names file and line, or file and number in the list.
    """
    unit = "line" if path.suffix == ".jsonl" else "entry"
    return checked(zip(_places(path, unit), read_examples(path), strict=False), columns)


def checked(rows: Iterable[tuple[str, dict[str, Any]]], columns: Sequence[str]) -> Rows:
    """The rows, each of which has all columns; raises ValueError naming place and column for one that has not."""
    rows = list(rows)
    for where, row in rows:
        missing = [name for name in columns if name not in row]
        if missing:
            raise ValueError(f"{where}: no column {missing[0]!r}; it has {sorted(row)}")
    return rows


def label_of(value: Any, labels: Sequence[str], where: str) -> int:
    """The number of a label that is written as its name, as its number or as true and false.

    Raises:
      ValueError: none of them.
    """
    if isinstance(value, str):
        if value in labels:
            return labels.index(value)
    elif isinstance(value, bool | int | np.integer) and 0 <= value < len(labels):
        return int(value)
    raise ValueError(f"{where}: label {value!r} is none of {list(labels)}")


def unasked(pool: Iterable[Item], items: Iterable[Item]) -> list[Item]:
    """The items of the pool whose question is none of the asked ones: no test row among its own examples."""
    questions = {item.question for item in items}
    return [item for item in pool if item.question not in questions]


def tfds_rows(folder: str | Path, split: str, root: str | Path, columns: Sequence[str]) -> Rows:
    """Rows of a folder that TFDS prepared as array_record, or of a registered name with `root` as data_dir."""
    examples = TfdsExamples(folder, split, data_dir=root)
    return checked(((f"{folder}, {split} {i}", examples[i]) for i in range(len(examples))), columns)


def task_of_splits(
    name: str, metrics: tuple[str, ...], item: Callable[[str, dict, str], Item], split: str, asked: Rows, pool: Rows
) -> Task:
    """The rows of `split` as items, with those of the training split that ask something else as pool."""
    items = [item(f"{split}/{i}", row, where) for i, (where, row) in enumerate(asked)]
    shown = [item(f"train/{i}", row, where) for i, (where, row) in enumerate(pool)]
    return Task(name, items, metrics, unasked(shown, items))


def _places(path: Path, unit: str) -> Iterator[str]:
    """Where the objects of a file stand: its lines that are not blank, or the entries of its list."""
    if unit == "entry":
        yield from (f"{path}, entry {number}" for number in count(1))
    with path.open("rb") as lines:
        yield from (f"{path}, line {number}" for number, line in enumerate(lines, start=1) if line.strip())
