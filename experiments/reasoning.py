"""Small decoders that answer word problems at once, by thinking or by programs, and remember, read or look up facts.

    python -m experiments.reasoning --config=configs/reasoning.py --workdir=runs/reasoning
    python -m experiments.reasoning --config=configs/reasoning.py:tiny --workdir=runs/reasoning_tiny

A cell is (world, form, seed): one JSON file in the folder. Started again, only what is missing is done. All forms of a
world have the same model and take equally many steps of rows of the same length, so they read equally many tokens; how
many lessons these hold differs. Problems that are asked are held out by their chain of calculations; facts are asked
of an edition of the registry that came after training.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

# Also as `python experiments/reasoning.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command, fact_forms, problem_forms
from experiments.cells import Cell, names, picked, spread, sweep
from experiments.fact_forms import FACT_FORMS, Library, fact_lessons, grouped
from experiments.problem_forms import PROBLEM_FORMS, problem_lessons
from experiments.reasoners import small_model, taught, trained_tokenizer
from research.apps import sandbox
from research.apps.protocol import Options
from research.core import compilation
from research.core.names import meant
from research.data.changing_facts import editions
from research.data.word_problems import Difficulty, word_problem
from research.decoding.local import LocalModel
from research.report import plots, print_table

_ASKED = 1000  # the seed of the problems that are asked, the same of every model


def solve(settings: Mapping[str, Any], form: str, seed: int) -> dict[str, Any]:
    """Teaches one form of answering word problems; its right answers by test, and by the steps of the problem."""
    learn = Difficulty(**settings["learn"])
    every = chain.from_iterable(zip(*(problem_lessons(one, learn, 0) for one in settings["forms"]), strict=True))
    tokenizer = trained_tokenizer(every, settings["tokenizer"])
    model = small_model(settings["model"], tokenizer)
    params, costs = taught(model, tokenizer, problem_lessons(form, learn, seed), settings["training"], seed)
    local = LocalModel(model, params, tokenizer, name=form, batch_size=settings["group"])
    options, votes = Options(settings["new_tokens"]), settings["votes"]
    drawn = Options(settings["new_tokens"], temperature=votes["temperature"])
    found: dict[str, Any] = {}
    for name, given in settings["tests"].items():
        problems = [word_problem(_ASKED, i, Difficulty(**given), held_out=True) for i in range(settings["questions"])]
        gold, steps = [str(problem.answer) for problem in problems], [len(problem.chain) - 1 for problem in problems]
        ask = partial(problem_forms.answers, local, form, level=settings["sandbox"])
        right = [most.answer == g for (most, _), g in zip(ask(problems, options, 1), gold, strict=True)]
        by_steps = {
            n: statistics.mean(ok for ok, s in zip(right, steps, strict=True) if s == n) for n in sorted(set(steps))
        }
        found[name] = {"right": statistics.mean(right), "by steps": by_steps}
        if form in votes["forms"]:
            some = ask(problems[: votes["questions"]], drawn, votes["samples"])
            found[name] |= {
                "vote": statistics.mean(most.answer == g for (most, _), g in zip(some, gold, strict=False)),
                "agreement": statistics.mean(most.agreement for most, _ in some),
                "greedy, the same": statistics.mean(right[: len(some)]),
            }
    return {"tests": found, **costs}


def find(settings: Mapping[str, Any], form: str, seed: int) -> dict[str, Any]:
    """Teaches one form of answering questions about the registry; its right answers by kind of question."""
    libraries, passages = [Library(edition) for edition in editions(0, **settings["registry"])], settings["passages"]
    before, now = libraries[:-1], libraries[-1]
    every = zip(*(fact_lessons(one, before, passages, 0) for one in settings["forms"]), strict=True)
    tokenizer = trained_tokenizer(chain.from_iterable(every), settings["tokenizer"])
    model = small_model(settings["model"], tokenizer)
    params, costs = taught(model, tokenizer, fact_lessons(form, before, passages, seed), settings["training"], seed)
    local = LocalModel(model, params, tokenizer, name=form, batch_size=settings["group"])
    found = {}
    for kind, questions in grouped(before[-1], now, settings["questions"]).items():
        said = fact_forms.answers(local, form, now, questions, passages, settings["new_tokens"])
        found[kind] = {"right": statistics.mean(a == q.answer for a, q in zip(said, questions, strict=True))}
    return {"tests": found, **costs}


WORLDS = {"problems": (solve, tuple(PROBLEM_FORMS)), "facts": (find, FACT_FORMS)}


def check(config: Mapping[str, Any]) -> None:
    """Refuses, before any work, worlds and forms that do not exist, and programs where no sandbox can run them."""
    for world in config["worlds"]:
        if world not in WORLDS:
            raise ValueError(f"unknown world {world!r}{meant(world, WORLDS)}; have {list(WORLDS)}")
        known = WORLDS[world][1]
        for form in config[world]["forms"]:
            if form not in known:
                raise ValueError(f"{world}: unknown form {form!r}{meant(form, known)}; have {list(known)}")
        if "program" in config[world]["forms"]:
            sandbox.run("pass", level=config[world]["sandbox"])


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the tables and draws the figures."""
    compilation.use_cache()
    check(config)
    for world in config["worlds"]:
        run, settings = WORLDS[world][0], config[world]
        grid = [
            Cell({"world": world, "form": form, "seed": seed}, settings, partial(run, settings, form, seed))
            for seed in config["seeds"]
            for form in settings["forms"]
        ]
        report(sweep(grid, workdir, console), workdir, console)


def report(results: Sequence[Mapping[str, Any]], workdir: Path, console: Console) -> None:
    """Right answers of every form in every test, mean and spread over seeds, and what was read; a figure."""
    world, tests, rows = results[0]["world"], list(results[0]["tests"]), []
    for form in names(results, "form"):
        found = picked(results, form=form)
        costs = [f"{found[0]['lessons']:,}", f"{found[0]['tokens']:,}", f"{_minutes(found):.1f} min"]
        for measure, label in (
            ("right", form),
            ("greedy, the same", f"{form}, greedy, questions of the vote"),
            ("vote", f"{form}, vote"),
            ("agreement", f"{form}, agreement"),
        ):
            if measure in found[0]["tests"][tests[0]]:
                values = [spread([r["tests"][test][measure] for r in found]) for test in tests]
                rows.append([label, *values, *(costs if measure == "right" else ["", "", ""])])
    header = ["", *tests, "lessons", "tokens read", "training, CPU time"]
    print_table(f"Right answers, {world}, {len(names(results, 'seed'))} seeds", header, rows, console=console)
    draw = by_steps if world == "problems" else by_kind
    console.print(
        f"The figure: [bold]{plots.save(draw(results), workdir / f'reasoning_{world}.png')}[/]", soft_wrap=True
    )


def _minutes(found: Sequence[Mapping[str, Any]]) -> float:
    return statistics.mean(r["cpu_seconds"] * r["steps"] for r in found) / 60


def by_steps(results: Sequence[Mapping[str, Any]]) -> Any:
    """Right answers over the steps of a problem, of the tests with numbers as trained; the band spans the seeds."""
    series, bands = {}, {}
    for form in names(results, "form"):
        points: dict[int, list[float]] = {}
        for result in picked(results, form=form):
            for test in ("as trained", "more steps"):
                for steps, right in result["tests"].get(test, {"by steps": {}})["by steps"].items():
                    points.setdefault(int(steps), []).append(right)
        x, values = sorted(points), [points[n] for n in sorted(points)]
        series[form] = x, [statistics.mean(found) for found in values]
        bands[form] = [min(found) for found in values], [max(found) for found in values]
    return plots.curves(series, bands=bands, x_label="steps of the problem", y_label="share of right answers")


def by_kind(results: Sequence[Mapping[str, Any]]) -> Any:
    """Right answers by kind of question; the interval spans the seeds."""
    groups: dict[str, dict[str, tuple[float, float, float]]] = {}
    for kind in results[0]["tests"]:
        for form in names(results, "form"):
            right = [r["tests"][kind]["right"] for r in picked(results, form=form)]
            groups.setdefault(kind.replace(", ", "\n"), {})[form] = min(right), statistics.mean(right), max(right)
    return plots.bars(groups, y_label="share of right answers", size=(7.4, 3.4))


if __name__ == "__main__":
    command.run(work, config="configs/reasoning.py", workdir="runs/reasoning")
