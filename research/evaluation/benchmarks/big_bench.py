"""BIG-bench's JSON tasks: multiple choice by likelihood, or exact match of a generated text.

See *Beyond the Imitation Game*, Srivastava et al., https://arxiv.org/abs/2206.04615. Prompts have the prefixes that
the file asks for; where options are shown they stand in alphabetical order, so that their place tells nothing.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.apps.prompting import Item, Task
from research.core.names import meant

from .files import checked, find

METRICS = ("multiple_choice_grade", "exact_str_match")
FIRST_SENTENCE = r"[^\.\?\!\;\n]+"  # what counts of an output where the file names neither a pattern nor an end
_FOLDERS = ("bigbench", "big_bench", "pal_bigbench")


def names(root: str | Path) -> list[str]:
    """The tasks whose files are there: bigbench/NAME.json, bigbench/NAME/task.json, bigbench/NAME/SUBTASK/task.json."""
    found = set()
    for top in (Path(root) / folder for folder in _FOLDERS):
        folders = {path.parent for path in top.glob("**/task.json")}
        outer = {folder.parent for folder in folders}  # the file there only names what its subtasks share
        found |= {folder.relative_to(top).as_posix() for folder in folders - outer}
        found |= {path.stem for path in top.glob("*.json")}
    return sorted(f"bigbench/{name}" for name in found)


def file(name: str, root: str | Path) -> Path:
    """The file of a task."""
    name = name.partition("/")[2]
    return find(root, [f"{folder}/{rest}" for folder in _FOLDERS for rest in (f"{name}.json", f"{name}/task.json")])


def task(name: str, root: str | Path, *, metric: str = "") -> Task:
    """One task, asked in the way of its preferred score or of `metric`; shots come from its other examples."""
    path = file(name, root)
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(held, dict) or not isinstance(held.get("examples"), list) or not held["examples"]:
        raise ValueError(f"{path}: expected a BIG-bench task with a list of 'examples'")
    chosen = metric or held.get("preferred_score", "multiple_choice_grade")
    if chosen not in METRICS:
        raise ValueError(f"{path}: cannot score by {chosen!r}{meant(chosen, METRICS)}; have {list(METRICS)}")
    column = "target_scores" if chosen == "multiple_choice_grade" else "target"
    rows = checked(
        [(f"{path}, example {i}", row) for i, row in enumerate(held["examples"], start=1)], ["input", column]
    )
    items = [_item(held, f"test/{i}", row, where, chosen) for i, (where, row) in enumerate(rows)]
    prefix = held.get("example_input_prefix", "\nQ: ")
    stop = held.get("stop_string")
    return Task(
        name,
        items,
        metrics=(chosen,),
        pool=items,
        # The file's texts are meant to be put side by side; line breaks between them are the separator here.
        description=held.get("task_prefix", "").rstrip("\n"),
        separator=held.get("few_shot_example_separator", "\n") + _breaks(prefix),
        stop=(stop,) if stop else ("\n",),
    )


def aggregate(tasks: Sequence[Task], scores: Mapping[str, float]) -> float:
    """BIG-bench's aggregate: the mean over (sub)tasks of 100 · (score − chance) / (1 − chance) of the preferred score.

    Chance is the mean grade of an option drawn at random, 0 where the answer is written freely.

    Raises:
      ValueError: no task, or a task without a score.
    """
    missing = [task.name for task in tasks if task.name not in scores]
    if missing or not tasks:
        raise ValueError(f"no score of {missing[0] if missing else 'any task'}; have {sorted(scores)}")
    return float(np.mean([100 * (scores[task.name] - chance(task)) / (1 - chance(task)) for task in tasks]))


def chance(task: Task) -> float:
    """What an answer drawn at random scores on average."""
    grades = [np.mean(item.info["grades"]) if item.choices else 0.0 for item in task.items]
    return float(np.mean(grades))


def _item(held: Mapping[str, Any], key: str, row: Mapping[str, Any], where: str, metric: str) -> Item:
    prefix, suffix = held.get("example_input_prefix", "\nQ: "), held.get("example_output_prefix", "\nA: ")
    options = row.get("target_scores") or {}
    if not isinstance(options, dict):
        raise ValueError(f"{where}: target_scores is {options!r}, expected an object from option to grade")
    # In the file's order the right option often stands first, which a model that ties could profit from.
    ordered = sorted(options)
    shown = "".join(held.get("choice_prefix", "\n  choice: ") + option for option in ordered)
    question = prefix[len(_breaks(prefix)) :] + row["input"]
    question += shown if held.get("append_choices_to_input", True) else ""
    whole = question + suffix
    question, blank = whole.rstrip(), whole[len(whole.rstrip()) :]
    if metric == "exact_str_match":
        targets = row["target"] if isinstance(row["target"], list) else [row["target"]]
        default = None if held.get("stop_string") else FIRST_SENTENCE
        return Item(key, question, answers=tuple(targets), info={"pattern": held.get("output_regex", default)})
    grades = [float(options[option]) for option in ordered]
    if not grades or max(grades) <= 0:
        raise ValueError(f"{where}: no option of {ordered} has a grade above 0")
    gold = tuple(i for i, grade in enumerate(grades) if grade == max(grades))
    return Item(key, question, tuple(blank + option for option in ordered), gold, info={"grades": grades})


def _breaks(text: str) -> str:
    return text[: len(text) - len(text.lstrip("\n"))]
