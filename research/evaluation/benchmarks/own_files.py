"""A task from any file of rows, JSON Lines, JSON, tab-separated or CSV, with one template for question and answer.

read_task("dev.tsv", "Review: {{ sentence }} Is it good? ||| {{ ['no', 'yes'][label | int] }}", choices="no ||| yes")
"""

from pathlib import Path
from typing import Any

from research.apps.prompting import Item, Task
from research.data.task_templates import TaskTemplate

from .files import Rows, read_objects, read_table, unasked

SUFFIXES = (".jsonl", ".json", ".tsv", ".csv")


def read_task(
    path: str | Path,
    template: str,
    *,
    choices: str = "",
    pool: str | Path | None = None,
    name: str = "",
    limit: int = 0,
    **fields: Any,
) -> Task:
    """The rows of a file as a task; "prompt ||| answer" and the choices are a `research.data.task_templates` template.

    With choices they are compared by likelihood and the answer must be one of them; without, the answer is written.
    Cells of tables are texts: `{{ label | int }}` makes a number of one.

    pool: a file of rows that examples are drawn from, without the asked questions; without it the asked rows
      themselves, each never its own example. limit: asks the first rows only. fields: what else a `Task` has.

    Raises:
      ValueError: a file of another kind, a row that the template does not fit, or an answer that is no choice; names
        file and line.
    """
    path, made = Path(path), TaskTemplate(template, choices)
    items = _items(path, made)
    others = items if pool is None else unasked(_items(Path(pool), made), items)
    fields = {"metrics": ("acc",) if choices else ("exact_match",), "pool": others, **fields}
    return Task(name or path.name.partition(".")[0], items[: limit or None], **fields)


def _items(path: Path, template: TaskTemplate) -> list[Item]:
    items = []
    for number, (where, row) in enumerate(_rows(path)):
        made, options = template(row, where), template.options(row, where)
        if options and made["completion"] not in options:
            raise ValueError(f"{where}: the answer {made['completion']!r} is none of the choices {options}")
        gold = (options.index(made["completion"]),) if options else ()
        spaced = tuple(f" {option}" for option in options)
        items.append(Item(f"{path.stem}/{number}", made["prompt"], spaced, gold, (made["completion"],)))
    return items


def _rows(path: Path) -> Rows:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} is no file of rows: expected one of {SUFFIXES}")
    if path.suffix in (".json", ".jsonl"):
        return read_objects(path, [])
    rows = read_table(path, [], delimiter="\t" if path.suffix == ".tsv" else ",")
    for where, row in rows:
        if None in row or None in row.values():
            raise ValueError(f"{where}: a value for every column was expected, and no more; got {list(row.values())}")
    return rows
