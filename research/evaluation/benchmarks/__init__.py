"""Benchmarks as tasks, from local files: GLUE, SuperGLUE, MMLU, BIG-bench, BBH, TruthfulQA, HHH, commonsense, GSM8K,
HumanEval.

`load("glue/rte", root)` gives one task, `load("glue", root)` all tasks of the group whose files are under `root`.
"""

import inspect
from pathlib import Path
from typing import Any

from research.apps.prompting import Task
from research.core.names import meant

from . import arithmetic, bbh, big_bench, commonsense, glue, hhh, humaneval, mmlu, superglue, truthfulqa
from .metrics import METRICS, Metric, pass_at_k, scored

__all__ = ["METRICS", "Metric", "available", "load", "pass_at_k", "scored"]

# Each has names(root), all tasks it knows; file(name, root), where the asked rows are; task(name, root, options).
_MODULES: tuple[Any, ...] = (glue, superglue, mmlu, big_bench, bbh, truthfulqa, hhh, commonsense, arithmetic, humaneval)


def available(root: str | Path) -> list[str]:
    """The names of all tasks whose files are under `root`."""
    return [name for name, module in _known(root).items() if _is_there(module, name, root)]


def load(name: str, root: str | Path, **options: Any) -> list[Task]:
    """One task, or the tasks of a group whose files are there.

    Options of single tasks: `tfds` (GLUE and SuperGLUE: a folder that TFDS prepared, or a registered name, instead of
    files), `metric` (BIG-bench), `form` (commonsense).

    Raises:
      ValueError: an unknown name or option, or rows that are not as published; names file and line.
      FileNotFoundError: names the file that is missing.
    """
    known = _known(root)
    if name in known:
        return [_task(known[name], name, root, options)]
    group = {full: module for full, module in known.items() if full.startswith(f"{name}/")}
    if not group:
        groups = {full.partition("/")[0] for full in known}
        near = meant(name, sorted(groups | set(known)))
        raise ValueError(f"unknown benchmark {name!r}{near}; have {sorted(groups)} and their tasks, such as 'glue/rte'")
    here = [full for full, module in group.items() if _is_there(module, full, root)]
    # A group of which nothing is there fails with the error of its first task, which names the missing file.
    return [_task(group[full], full, root, options) for full in here or list(group)[:1]]


def _known(root: str | Path) -> dict[str, Any]:
    return {name: module for module in _MODULES for name in module.names(root)}


def _is_there(module: Any, name: str, root: str | Path) -> bool:
    try:
        module.file(name, root)
    except FileNotFoundError:
        return False
    return True


def _task(module: Any, name: str, root: str | Path, options: dict[str, Any]) -> Task:
    taken = [key for key, p in inspect.signature(module.task).parameters.items() if p.kind is p.KEYWORD_ONLY]
    unknown = [key for key in options if key not in taken]
    if unknown:
        raise ValueError(f"{name} takes no option {unknown[0]!r}{meant(unknown[0], taken)}; have {taken}")
    return module.task(name, root, **options)
