"""Programs of the data sets in the sandbox: how many give their targets, what goes wrong, how many a second.

    python -m experiments.programs --config=configs/programs.py --workdir=runs/programs

GSM-hard: the published programs. AQuA: what Codex wrote for PAL, whose answer is the choice nearest to the value; its
programs were run behind imports of sympy and numpy, here behind those of `math` alone. HumanEval: the canonical
solutions with their tests.
"""

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

# Also as `python experiments/programs.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import data_folder
from research.apps import pal, sandbox
from research.apps.prompting.extract import normalize_number
from research.core.names import meant
from research.evaluation import benchmarks
from research.evaluation.benchmarks import humaneval
from research.report import print_table

MATH = "import math\nfrom math import *\n"


class Case(NamedTuple):
    """A program, and whether the text of its answer is right."""

    program: str
    right: Callable[[str], bool]


def gsm_hard(root: Path) -> Iterator[Case]:
    """Programs with large numbers in place of those of GSM8K."""
    for row in _rows(root / "gsm_hard", "gsmhardv2*.jsonl"):
        yield Case(row["code"], lambda value, target=row["target"]: pal.same(value, target))


def aqua(root: Path) -> Iterator[Case]:
    """Stored outputs of a model for questions with five choices."""
    for row in _rows(root / "pal_math", "aqua_pal_outputs.jsonl"):
        question = row["question"].rpartition("Question: ")[2]
        program = MATH + pal.program_of(row["generated_answer"])
        yield Case(program, lambda value, q=question, letter=row["answer"]: nearest(value, q) == letter)


def solutions(root: Path) -> Iterator[Case]:
    """HumanEval's own solutions, which answer if their tests pass."""
    [task] = benchmarks.load("humaneval", root)
    for item in task.items:
        yield Case(humaneval.program(item, item.answers[0]) + "answer = 'passed'\n", lambda value: value == "passed")


SETS: dict[str, Callable[[Path], Iterator[Case]]] = {"gsm_hard": gsm_hard, "aqua": aqua, "humaneval": solutions}


def nearest(value: str, question: str) -> str | None:
    """ "(a)" to "(e)": the choice whose first number is nearest; None: the value or no choice is a number."""
    found = normalize_number(value)
    choices = re.findall(r"(\([a-e]\))(.*?)(?=\([a-e]\)|$)", question.partition("#")[0], re.DOTALL)
    numbers = {letter: number for letter, text in choices if (number := _number(text)) is not None}
    if found is None or not numbers:
        return None
    return min(numbers, key=lambda letter: abs(numbers[letter] - Fraction(found)))


def _number(text: str) -> Fraction | None:
    """Its first number, be it a fraction."""
    if parts := re.match(r"\D*?(\d+)\s*/\s*([1-9]\d*)", text):
        return Fraction(int(parts[1]), int(parts[2]))
    first = normalize_number(text)
    return None if first is None else Fraction(first)


def _rows(folder: Path, pattern: str) -> Iterator[Mapping[str, Any]]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise ValueError(f"no {pattern} in {folder}")
    for line in found[0].read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def kind(error: str) -> str:
    """What an error is, without its details: NameError, killed, ..."""
    return re.split(r"[:\s]", error.strip().splitlines()[-1])[0]


def measure(name: str, cases: list[Case], level: str) -> dict[str, Any]:
    """One row of the table."""
    start = time.perf_counter()
    executed = pal.execute_all([case.program for case in cases], level=level)
    seconds = time.perf_counter() - start
    met = sum(one.value is not None and case.right(one.value) for case, one in zip(cases, executed, strict=True))
    errors = Counter(kind(one.error) for one in executed if one.value is None)
    rate = len(cases) / seconds
    return {"set": name, "programs": len(cases), "met": met, "errors": dict(errors.most_common()), "per_second": rate}


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Runs all sets and prints the table."""
    root, level = data_folder(config["data"]), sandbox.require(config["sandbox"])
    for name in config["sets"]:
        if name not in SETS:
            raise ValueError(f"unknown set {name!r}{meant(name, SETS)}; have {list(SETS)}")
    if config["limit"] < 0:
        raise ValueError(f"limit is a number of programs, 0 for all; given {config['limit']}")
    found = [measure(name, list(SETS[name](root))[: config["limit"] or None], level) for name in config["sets"]]
    header = ["set", "programs", "targets met", "without an answer", "programs/s"]
    rows = [
        [r["set"], r["programs"], r["met"], ", ".join(f"{n} {k}" for k, n in r["errors"].items()), r["per_second"]]
        for r in found
    ]
    print_table(f"Programs in the sandbox (isolation: {level})", header, rows, console=console)
    (workdir / "results.json").write_text(json.dumps({"isolation": level, "sets": found}, indent=1) + "\n")


if __name__ == "__main__":
    command.run(work, config="configs/programs.py", workdir="runs/programs")
