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
import numpy as np
from rich.console import Console

# Also as `python experiments/compress.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, data_folder, names, picked, spread, sweep
from experiments.quantized import HEADERS, SUBJECTS, check, measured, packed, trained
from research import weights
from research.core import compilation, tree
from research.interop import save_pretrained
from research.interop.card import Card, write_card
from research.interop.run import save_run
from research.models import ModelConfig, build
from research.report import plots, print_table
from research.weights.prune import gradual
from research.weights.slim import importance, slim

BUDGETS = {"bytes": "at most {:,.0f} bytes at rest", "decode": "at least {:,.0f} tokens/s"}


def smaller(subject: Any, form: Mapping[str, Any], seed: int) -> tuple[ModelConfig, Any]:
    """The config and plain weights of a form before it is quantized: cut or masked, trained again, folded."""
    config, params, key = subject.config, subject.params, jax.random.key(seed)
    settings = subject.settings["recovery"]
    if form["slim"]:
        loss_fn = subject.loss(build(config, unroll=True))
        worth = importance(loss_fn, config, params, subject.batches(seed, settings["batches"]))
        config, params = slim(config, params, importance=worth, **kept(config, form["slim"]))
    model = build(config, unroll=True)
    stages = form["stages"] if form["prune"] else 1
    for stage in range(stages):
        recipe = recipe_of(form, stage, settings["lora_rank"])
        if not recipe:
            break
        run, batches = subject.hidden(model), subject.calibration(seed)
        params = weights.quantize(
            params, recipe, run=run, batches=batches, config=config, key=jax.random.fold_in(key, stage)
        )
        if form["recover"]:
            steps = max(1, settings["steps"] // stages)
            batches = subject.batches(seed, steps * stages)[stage * steps :][:steps]
            params = trained(subject.loss(model), params, recipe, batches, settings["learning_rate"], key)
        params = weights.merge(params)
    return config, params


def kept(config: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `slim`: shares of heads and columns as numbers, heads in groups that share keys."""
    out = dict(given)
    if "columns" in out:
        out["columns"] = round(out["columns"] * config.d_ff)
    if "heads" in out:
        shared = config.n_heads // config.n_kv_heads
        out["heads"] = max(1, round(out["heads"] * config.n_kv_heads)) * shared
    return out


def recipe_of(form: Mapping[str, Any], stage: int, rank: int) -> list[dict[str, Any]]:
    """What masks and what learns at one stage. LoRA stands below the mask, so that merging keeps the zeros."""
    masks = [dict(form["prune"])] if form["prune"] else []
    if masks and form["stages"] > 1:
        masks[0]["sparsity"] = gradual(stage + 1, form["stages"], masks[0]["sparsity"])
    if form["recover"] == "lora":
        return [{"method": "lora", "rank": rank, "target": r".*/layers/.*/kernel"}, *masks]
    return masks + ([{"method": "full"}] if form["recover"] else [])


def run_cell(subject: Any, form: Mapping[str, Any], seed: int, timed: bool, export: Path | None) -> dict[str, Any]:
    """Makes one form with one seed; quality, bytes, speed where `timed`, and the files in `export`."""
    config, params = smaller(subject, form, seed)
    model = build(config, policy=form["policy"], unroll=True)
    ready = packed(subject, model, params, form["quantize"], seed)
    figures = measured(subject, model, ready, "", timed)
    zeros = sparsity(params)
    figures |= {"sparsity": zeros, "weights": tree.count(params), "at_rest": at_rest(params, figures, form)}
    if export is not None:
        write(subject, model, ready, form, figures, export)
    return figures


def sparsity(params: Any) -> float:
    """The share of the layers' kernels that is zero."""
    kernels = [
        np.asarray(w) for path, w in tree.paths(params).items() if "/layers/" in path and path.endswith("/kernel")
    ]
    return 1 - sum(int(np.count_nonzero(w)) for w in kernels) / sum(w.size for w in kernels)


def at_rest(params: Any, figures: Mapping[str, Any], form: Mapping[str, Any]) -> int:
    """Bytes in a file that leaves out the zeros of masked kernels and has one bit for every place in them.

    Quantized forms count whole: a grid need not have a zero.
    """
    if not form["prune"] or form["quantize"]:
        return int(figures["bytes"])
    saved = 0.0
    for path, w in tree.paths(params).items():
        if "/layers/" in path and path.endswith("/kernel"):
            saved += int(w.size - np.count_nonzero(np.asarray(w))) * figures["bits"] / 8 - w.size / 8
    return round(figures["bytes"] - saved)


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


def rules_of(form: Mapping[str, Any]) -> tuple[Any, ...]:
    """The rules of a form, read."""
    return weights.parse([*([form["prune"]] if form["prune"] else []), *form["quantize"]])


def cells_of(name: str, subject: Any, config: Mapping[str, Any], workdir: Path) -> list[Cell]:
    """One cell per form and seed; a form with no training and no calibration in it has one seed."""
    grid = []
    for form, given in config["forms"].items():
        chance = given["recover"] or given["slim"] or any(getattr(r, "CALIBRATED", False) for r in rules_of(given))
        for seed in config["seeds"] if chance else config["seeds"][:1]:
            settings = {"form": given, "subject": config[name], "base": tree.fingerprint(subject.params)}
            first = seed == config["seeds"][0]
            folder = workdir / "exported" / name / re.sub(r"\W+", "_", form).strip("_")
            run = partial(run_cell, subject, given, seed, first, folder if first and config["export"] else None)
            grid.append(Cell({"subject": name, "form": form, "seed": seed}, settings, run))
    return grid


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the tables, draws the figures and answers the budget."""
    compilation.use_cache()
    root = data_folder(config["data"])
    check(config["subjects"], forms=config["forms"])
    for form in config["forms"].values():
        rules_of(form)  # refused here
    for name in config["subjects"]:
        subject = SUBJECTS[name].make(config[name], root, workdir, console)
        results = sweep(cells_of(name, subject, config, workdir), workdir, console)
        report(name, results, subject.QUALITY, subject.SPEED, workdir, console)
        console.print(recommended(results, config["budget"], subject.SPEED[-1]), soft_wrap=True)


def frontier(points: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """The points that no other one beats in both numbers, the smallest first."""
    best, out = float("inf"), []
    for point in sorted(points, key=lambda p: p[1:]):
        if point[2] < best:
            out.append(point)
            best = point[2]
    return out


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
    best = frontier(points)
    groups = {"frontier": best, "the others": [("", x, y) for form, x, y in points if (form, x, y) not in best]}
    groups = {group: some for group, some in groups.items() if some}
    drawn = plots.points(groups, x_label="bytes at rest", y_label="nats, held out", log_x=True)
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
