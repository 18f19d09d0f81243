"""From a model to one table of smaller ones: pruned, cut, trained again, quantized, and all of it together.

    python -m experiments.compress --config=configs/compress.py --workdir=runs/compress
    python -m experiments.compress --config=configs/compress.py --config.budget.bytes=300000

A cell is (subject, form, seed): one JSON file; the models of the first seed are written to runs/compress/exported, each
with its card. Started again, only what is missing is done. A budget is answered with the best form that keeps to it.
"""

import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

# Also as `python experiments/compress.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, data_folder, names, picked, spread, sweep
from experiments.quantized import HEADERS, SUBJECTS, check, measured, packed
from experiments.smaller import Make, at_rest, check_form, pareto, rules_of, shared, sparsity
from research.core import compilation, tree
from research.interop import save_pretrained
from research.interop.card import Card, write_card
from research.interop.run import save_run
from research.models import build
from research.report import plots, print_table

BUDGETS = {"bytes": "at most {:,.0f} bytes at rest", "decode": "at least {:,.0f} a second"}


def run_cell(
    subject: Any, form: Mapping[str, Any], seed: int, make: Make, timed: bool, export: Path | None
) -> dict[str, Any]:
    """Makes one form with one seed; quality, bytes, speed where `timed`, and the files in `export`."""
    config, params = make(form, seed)
    model = build(config, policy=form["policy"], unroll=True)
    ready = packed(subject, model, params, form["quantize"], seed)
    figures = measured(subject, model, ready, "", timed)
    # Quantized forms count whole: a grid need not have a zero.
    masked = form["prune"] and not form["quantize"]
    rest = at_rest(params, figures["bytes"], figures["bits"]) if masked else int(figures["bytes"])
    figures |= {"sparsity": sparsity(params), "weights": tree.count(params), "at_rest": rest}
    if export is not None:
        write(subject, model, ready, form, figures, export)
    return figures


def write(
    subject: Any, model: Any, params: Any, form: Mapping[str, Any], figures: Mapping[str, Any], folder: Path
) -> None:
    """The model with its card: a folder of transformers, or where that has no word for it, a run of ours."""
    told = [{"task": name, "metric": HEADERS[name], "value": round(figures[name], 5)} for name in subject.QUALITY]
    recipe = {name: form[name] for name in ("prune", "slim", "recover", "quantize", "policy") if form[name]}
    card = Card(
        title=folder.name,
        summary=f"{folder.parent.name}, smaller: {figures['weights']:,} weights, {figures['bytes']:,} bytes in use.",
        recipe=repr(recipe),
        command="python -m experiments.compress --config=configs/compress.py",
        results=told,
        parent=folder.parent.name,
        limitations="Scored on the texts of the experiment alone.",
    )
    if form["quantize"]:
        save_run(folder, model.config, params, form["quantize"])
        write_card(folder, card)
        return
    try:
        save_pretrained(folder, model.config, jax.tree.map(lambda w: w.astype(model.policy.compute), params), card=card)
    except ValueError:  # fewer heads than the format can say
        save_run(folder, model.config, params)
        write_card(folder, card)


def cells_of(name: str, subject: Any, config: Mapping[str, Any], workdir: Path) -> list[Cell]:
    """One cell per form and seed; a form with no training and no calibration in it has one seed."""
    grid, make = [], shared(subject, list(config["forms"].values()))
    for form, given in config["forms"].items():
        chance = given["recover"] or given["slim"] or any(getattr(r, "CALIBRATED", False) for r in rules_of(given))
        for seed in config["seeds"] if chance else config["seeds"][:1]:
            settings = {"form": given, "subject": config[name], "base": tree.fingerprint(subject.params)}
            first = seed == config["seeds"][0]
            folder = workdir / "exported" / name / re.sub(r"\W+", "_", form).strip("_")
            run = partial(run_cell, subject, given, seed, make, first, folder if first and config["export"] else None)
            grid.append(Cell({"subject": name, "form": form, "seed": seed}, settings, run))
    return grid


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the tables, draws the figures and answers the budget."""
    compilation.use_cache()
    root = data_folder(config["data"])
    check(config["subjects"], forms=config["forms"])
    for form, given in config["forms"].items():
        check_form(form, given)
    for name in config["subjects"]:
        subject = SUBJECTS[name].make(config[name], root, workdir, console)
        results = sweep(cells_of(name, subject, config, workdir), workdir, console)
        report(name, results, subject.QUALITY, subject.SPEED, workdir, console)
        console.print(recommended(results, config["budget"], subject.SPEED[-1]), soft_wrap=True)


def report(
    name: str,
    results: Sequence[Mapping[str, Any]],
    quality: Sequence[str],
    speed: Sequence[str],
    workdir: Path,
    console: Console,
) -> None:
    """The table of one subject, in the order of the forms, and the loss against bytes with the Pareto frontier."""
    rows, points = [], []
    for form in names(results, "form"):
        found = picked(results, form=form)
        first = found[0]
        scores = [spread([r[what] for r in found], 4 if "loss" in what else 3) for what in quality]
        sizes = [f"{first['weights']:,}", f"{first['sparsity']:.0%}", f"{first['bytes']:,}", f"{first['at_rest']:,}"]
        rows.append([form, *sizes, *scores, *(f"{first[what]:,.0f}" for what in speed)])
        points.append((form, float(first["at_rest"]), statistics.mean(r["loss"] for r in found)))
    heads = ["", "weights", "zeros", "bytes", "at rest", *(HEADERS[w] for w in quality), *(HEADERS[w] for w in speed)]
    print_table(f"{name}, per second of processor time", heads, rows, console=console)
    drawn = plots.points(pareto(points), x_label="bytes at rest", y_label="nats, held out", log_x=True)
    path = plots.save(drawn, workdir / f"compress_{name.lower().replace('-', '')}.png")
    console.print(f"The figure: [bold]{path}[/]", soft_wrap=True)


def recommended(results: Sequence[Mapping[str, Any]], budget: Mapping[str, float], speed: str) -> str:
    """The form with the least loss that keeps to the budget, in a sentence."""
    asked = {name: limit for name, limit in budget.items() if limit}
    told = " and ".join(BUDGETS[name].format(limit) for name, limit in asked.items()) or "no budget"
    first = [picked(results, form=form)[0] for form in names(results, "form")]
    loss = lambda r: statistics.mean(x["loss"] for x in picked(results, form=r["form"]))  # noqa: E731
    small = [r for r in first if r["at_rest"] <= (asked.get("bytes") or float("inf"))]
    fits = [r for r in small if r[speed] >= asked.get("decode", 0)]
    if not fits:
        least, fastest = min(r["at_rest"] for r in first), max(r[speed] for r in first)
        return f"{told}: no form keeps to it; the smallest has {least:,} bytes, the fastest {fastest:,.0f} a second"
    best = min(fits, key=loss)
    return f"{told}: {best['form']!r}, {loss(best):.4f} nats in {best['at_rest']:,} bytes, {best[speed]:,.0f} a second"


if __name__ == "__main__":
    command.run(work, config="configs/compress.py", workdir="runs/compress")
