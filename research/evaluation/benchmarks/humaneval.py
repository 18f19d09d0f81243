"""HumanEval: programs that complete a signature and docstring, right if the task's tests pass.

See *Evaluating Large Language Models Trained on Code*, Chen et al., https://arxiv.org/abs/2107.03374. Programs that a
model wrote never run in this process, but in a sandbox.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from research.apps import sandbox
from research.apps.prompting import Item, Outcome, Task

from .files import find, read_objects

PASSED, FAILED = "passed", "failed"
Passes = Callable[[str], bool]


def names(root: str | Path) -> list[str]:
    """The one task."""
    del root
    return ["humaneval"]


def file(name: str, root: str | Path) -> Path:
    """The problems."""
    del name
    return find(root, ["humaneval/HumanEval.jsonl", "humaneval/HumanEval.*.jsonl", "HumanEval.jsonl"])


def task(name: str, root: str | Path) -> Task:
    """All problems; a sample ends where the function does."""
    return Task(
        name,
        read_problems(file(name, root)),
        metrics=("pass@1",),
        stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
        max_new_tokens=512,
    )


def read_problems(path: str | Path) -> list[Item]:
    """Problems in HumanEval's format; `info` holds what the tests need."""
    columns = ("task_id", "prompt", "canonical_solution", "test", "entry_point")
    return [
        Item(
            row["task_id"],
            row["prompt"].rstrip(),
            answers=(row["canonical_solution"],),
            info={key: row[key] for key in ("prompt", "test", "entry_point")},
        )
        for _, row in read_objects(Path(path), columns)
    ]


def program(item: Item, completion: str) -> str:
    """What is run: prompt, completion and the tests, called on the completed function."""
    info = item.info
    return f"{info['prompt']}{completion}\n{info['test']}\ncheck({info['entry_point']})\n"


def passes(program: str, level: str = "bubblewrap") -> bool:
    """Whether a program comes to its end in the sandbox, of at least this level."""
    return sandbox.run(program, level=level).ok


def run_programs(task: Task, outcomes: Sequence[Outcome], passes: Passes = passes) -> list[Outcome]:
    """The outcomes (one or several samples per problem, in `text`) with "passed" or "failed" as their prediction.

    passes: runs a program elsewhere, within limits, on several threads.

    Raises:
      ValueError: an outcome of no problem.
      NoSandboxError: the machine gives no sandbox.
    """
    items = {item.id: item for item in task.items}
    unknown = [outcome.item for outcome in outcomes if outcome.item not in items]
    if unknown:
        raise ValueError(f"{task.name} has no item {unknown[0]!r}, of which there is an outcome")
    programs = [program(items[outcome.item], outcome.text) for outcome in outcomes]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        judged = list(pool.map(passes, programs))
    return [replace(o, prediction=PASSED if good else FAILED) for o, good in zip(outcomes, judged, strict=True)]
