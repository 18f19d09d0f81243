"""One table of PEFT methods: quality, trainable parameters, memory, seconds, bytes; every cell is remembered.

    python -m experiments.peft_table --config=configs/peft_table.py --workdir=runs/peft_table

A cell is (task, method, seed): one JSON file in the folder. Started again, only what is missing is done.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

# Also as `python experiments/peft_table.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, data_folder, names, picked, spread, sweep
from experiments.labelled import batches_of, read_task
from experiments.loading import encoder_folder
from experiments.trial import linear_decay, train
from research import weights
from research.core import compilation
from research.data import load_tokenizer
from research.interop import load_pretrained
from research.models import Model, build
from research.recipes.classify import accuracy, classification_loss
from research.report import plots, print_table
from research.weights.prompts import virtual_ids

HEAD = {"method": "select", "target": "head/.*"}


def run_cell(
    config: Mapping[str, Any], task: Mapping[str, list], method: Mapping[str, Any], seed: int, model: Model, body: Any
) -> dict[str, Any]:
    """Trains one method with one seed and scores the development rows."""
    key = jax.random.key(seed)
    recipe = [*method["recipe"], HEAD]
    fresh = jax.jit(model.init)(jax.random.fold_in(key, 0))
    params = weights.attach({**body, "head": fresh["head"]}, recipe, jax.random.fold_in(key, 1), config=model.config)
    virtual, rng = virtual_ids(params), np.random.default_rng(seed)
    batches = [b for _ in range(config["epochs"]) for b in batches_of(task["train"], config, virtual, rng)]
    trained, costs = train(
        classification_loss(model),
        params,
        linear_decay(method["learning_rate"], len(batches)),
        batches,
        jax.random.fold_in(key, 2),
        trainable=weights.trainable(params, recipe),
        policy=model.policy,
    )
    share, _ = accuracy(model, trained, batches_of(task["dev"], config, virtual, None))
    return {"accuracy": share, **costs}


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the table and draws the figure."""
    compilation.use_cache()
    folder, root = encoder_folder(config["model"]), data_folder(config["data"])
    described, body, _ = load_pretrained(folder, head="none")
    tokenizer = load_tokenizer(folder)
    described = described.replace(head="sequence", pooling="first", head_dense=False, n_labels=2)
    model = build(described, policy=config["policy"], unroll=True)
    for method in config["methods"].values():
        weights.parse([*method["recipe"], HEAD])  # refused here
    sizes = (max(config["lengths"]), config["rows"], config["dev_rows"])
    tasks = {name: read_task(name, root, tokenizer, *sizes) for name in config["tasks"]}
    common = {k: v for k, v in config.items() if k not in ("methods", "seeds", "tasks")}
    grid = [
        Cell(
            {"task": task, "method": name, "seed": seed},
            {"method": method, **common},
            partial(run_cell, config, tasks[task], method, seed, model, body),
        )
        for seed in config["seeds"]
        for task in tasks
        for name, method in config["methods"].items()
    ]
    report(sweep(grid, workdir, console), workdir, console)


def report(results: list[dict[str, Any]], workdir: Path, console: Console) -> None:
    """The table (mean and spread over seeds) on the terminal, and quality against trainable parameters as a figure."""
    points: dict[str, list[tuple[str, float, float]]] = {}
    for task in names(results, "task"):
        rows, points[task] = [], []
        for name in names(picked(results, task=task), "method"):
            found = picked(results, task=task, method=name)
            scores, one = [r["accuracy"] for r in found], found[0]
            points[task].append((name, one["trainable"], statistics.mean(scores)))
            took = statistics.median(r["cpu_seconds"] for r in found)
            sizes = [f"{one['trainable']:,}", f"{one['memory'] / 2**20:.0f} MiB"]
            rows.append([name, spread(scores), *sizes, f"{1000 * took:.0f} ms", f"{one['bytes'] / 1024:,.0f} kB"])
        header = ["method", f"accuracy, {len(found)} seeds", "trainable", "step memory", "CPU time, a step", "on disk"]
        print_table(task, header, rows, console=console)
    drawn = plots.points(points, x_label="trainable parameters", y_label="accuracy, development rows", log_x=True)
    console.print(f"The figure: [bold]{plots.save(drawn, workdir / 'peft_table.png')}[/]", soft_wrap=True)
    series, levels = by_rank(results)
    if series:
        drawn = plots.curves(series, x_label="rank", y_label="accuracy, development rows", log_x=True, levels=levels)
        console.print(f"The ranks: [bold]{plots.save(drawn, workdir / 'peft_ranks.png')}[/]", soft_wrap=True)


def by_rank(results: Sequence[Mapping[str, Any]]) -> tuple[dict[str, tuple[list[int], list[float]]], dict[str, float]]:
    """{"task, method": (ranks, accuracies)} of methods called "method r<rank>"; beside them tuning of all weights."""
    series: dict[str, dict[int, float]] = {}
    levels = {}
    for task in names(results, "task"):
        for name in names(picked(results, task=task), "method"):
            mean = statistics.mean(r["accuracy"] for r in picked(results, task=task, method=name))
            method, _, rank = name.rpartition(" r")
            if name == "full":
                levels[f"{task}, full"] = mean
            elif method and rank.isdigit():
                series.setdefault(f"{task}, {method}", {})[int(rank)] = mean
    # A config's keys come in the order of the alphabet, in which 16 stands before 2.
    curves = {name: tuple(zip(*sorted(means.items()), strict=True)) for name, means in series.items() if len(means) > 1}
    return {name: (list(ranks), list(accuracies)) for name, (ranks, accuracies) in curves.items()}, levels


if __name__ == "__main__":
    command.run(work, config="configs/peft_table.py", workdir="runs/peft_table")
