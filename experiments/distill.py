"""Smaller students of three families with and without a teacher: temperatures, divergences, stored, sampled, rewritten.

    python -m experiments.distill --config=configs/distill.py --workdir=runs/distill

A cell is (family, method, seed): one JSON file in the folder. Started again, only what is missing is done. All students
of a family begin with the same weights, or with those of their seed, and take equally many steps.
"""

import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

# Also as `python experiments/distill.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, data_folder, names, picked, spread, sweep
from experiments.students import FAMILIES, Family
from experiments.trial import linear_decay
from research.core import compilation, tree
from research.core.names import meant
from research.models import Model
from research.recipes.classify import classification_loss
from research.recipes.distill import LABELS, Match, beside_teacher, distillation_loss, match_projections
from research.recipes.pretrain import language_model_loss
from research.report import plots, print_table
from research.training import optim
from research.training.state import create
from research.training.step import LossFn, make_step

# What a method is where its config says nothing else.
PLAIN = {
    "alpha": 1.0,  # of the labels; 1: no teacher
    "temperature": 1.0,
    "beta": 0.0,  # 0 forward KL, 1 reverse, between: Jensen-Shannon
    "stored": 0,  # tokens of the teacher that are read from disk, 0: it is in memory
    "share": 0.0,  # of batches that the student writes
    "targets": "data",  # or "teacher", which then writes them
    "hidden": (),
    "attention": (),
}


def labels_alone(model: Model) -> LossFn:
    """The usual loss of the student."""
    usual = classification_loss(model) if model.config.head in LABELS else language_model_loss(model)
    return lambda params, batch, rng: usual(params["student"], batch, rng)


def run_cell(family: Family, method: Mapping[str, Any], rate: float, seed: int) -> dict[str, Any]:
    """Trains one student; its figures and what that cost."""
    key = jax.random.key(seed)
    student, teacher = family.student, None if method["stored"] else family.teacher
    match = Match(hidden=method["hidden"], attention=method["attention"])
    asks = method["alpha"] < 1
    loss = labels_alone(student)
    if asks:
        options = {name: method[name] for name in ("alpha", "temperature", "beta")}
        loss = distillation_loss(student, teacher, match=match, **options)
    maps = match_projections(jax.random.fold_in(key, 1), student, family.teacher, match)
    params, learns = beside_teacher(
        family.start(jax.random.fold_in(key, 0)), family.params if asks and teacher else None, maps
    )
    batch_of, steps = family.batches(method, seed), family.steps
    optimizer = optim.make(linear_decay(rate, steps, clip=1.0), tree.split(params, learns)[0], steps=steps)
    state, frozen = create(params, optimizer, rng=jax.random.fold_in(key, 2), trainable=learns)
    step, losses, worked = make_step(loss, optimizer), [], []
    for i in range(steps):
        before = time.process_time()
        state, metrics = step(state, frozen, batch_of(i, state.params["student"]))
        losses.append(float(metrics["loss"]))
        worked.append(time.process_time() - before)
    final = statistics.mean(losses[-max(1, steps // 10) :])
    if not math.isfinite(final):
        raise ValueError(f"the loss became {final} with {dict(method)}")
    made = state.params["student"]
    # Without the slowest tenth, in which programs are compiled; a share of the steps may cost more than the others.
    costs = {"cpu_seconds": statistics.mean(sorted(worked)[: math.ceil(0.9 * steps)]), "steps": steps, "loss": final}
    return {"scores": family.score(student, made), "parameters": tree.count(made), **costs}


def of_teacher(family: Family) -> dict[str, Any]:
    """The teacher judged as its students are."""
    return {"scores": family.score(family.teacher, family.params), "parameters": tree.count(family.params)}


def check(config: Mapping[str, Any]) -> None:
    """Refuses, before any work, families and methods that do not exist."""
    for name in config["families"]:
        if name not in FAMILIES:
            raise ValueError(f"unknown family {name!r}{meant(name, FAMILIES)}; have {list(FAMILIES)}")
        for title, method in config[name]["methods"].items():
            for option in method:
                if option not in PLAIN:
                    hint = meant(option, PLAIN)
                    raise ValueError(f"{name}, {title!r}: unknown option {option!r}{hint}; have {sorted(PLAIN)}")
            unused = {"stored", "share"} & set(method) if name != "decoder" else set()
            if unused or (name == "encoder" and "targets" in method):
                raise ValueError(f"{name}, {title!r}: {sorted(method)} are more than this family knows")


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the tables and draws the figures."""
    compilation.use_cache()
    check(config)
    root, results = data_folder(config["data"]), []
    for name in config["families"]:
        settings = config[name]
        if name == "encoder_decoder" and not settings["base"]:
            console.print("encoder_decoder: left out, for its base has an empty name")
            continue
        family = FAMILIES[name](config, root, workdir, console)
        common = {k: v for k, v in settings.items() if k != "methods"} | {"teacher": tree.fingerprint(family.params)}
        grid = [Cell({"family": name, "method": "teacher", "seed": 0}, common, partial(of_teacher, family))]
        for seed in config["seeds"]:
            for title, given in settings["methods"].items():
                method = {**PLAIN, **given}
                run = partial(run_cell, family, method, settings["student_rate"], seed)
                grid.append(Cell({"family": name, "method": title, "seed": seed}, {**method, **common}, run))
        found = sweep(grid, workdir, console)
        report(name, found, workdir, console)
        results += found
    if not results:
        raise ValueError("there is nothing to do: config.families names no family with a base")


def report(family: str, results: Sequence[Mapping[str, Any]], workdir: Path, console: Console) -> None:
    """One table (mean and spread over seeds), and the first score of every method against what its steps cost."""
    shown, rows, drawn = list(results[0]["scores"]), [], []
    for method in names(results, "method"):
        found = picked(results, method=method)
        values = {name: [r["scores"][name] for r in found] for name in shown}
        costs = [1000 * r["cpu_seconds"] for r in found if "cpu_seconds" in r]
        took = f"{statistics.median(costs):.0f} ms" if costs else ""
        rows.append([method, *(spread(values[name]) for name in shown), f"{found[0]['parameters']:,}", took])
        if costs:
            drawn.append((method, statistics.median(costs), statistics.mean(values[shown[0]])))
    header = ["method", *shown, "parameters", "CPU time, a step"]
    print_table(f"{family}, {len({r['seed'] for r in results})} seeds", header, rows, console=console)
    figure = plots.points({family: drawn}, x_label="CPU time of a step, ms", y_label=shown[0], log_x=True)
    console.print(f"The figure: [bold]{plots.save(figure, workdir / f'distill_{family}.png')}[/]", soft_wrap=True)


if __name__ == "__main__":
    command.run(work, config="configs/distill.py", workdir="runs/distill")
