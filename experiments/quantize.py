"""Bits against quality, bytes and speed: a real decoder and a real encoder in every quantized form.

    python -m experiments.quantize --config=configs/quantize.py --workdir=runs/quantize

A cell is (subject, method, seed): one JSON file in the folder. Started again, only what is missing is done.
"""

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

# Also as `python experiments/quantize.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, data_folder, names, picked, spread, sweep
from experiments.quantized import HEADERS, PLAIN, SUBJECTS, check, measured, packed, trained_for
from research import weights
from research.core import compilation, tree
from research.models import build
from research.report import plots, print_table
from research.weights.quantize import layer_by_layer

# What the papers report: the perplexity of the plain model and of the quantized one.
PUBLISHED = {
    "LLM.int8(), OPT 125M": ("8", 25.65, 25.83),
    "SmoothQuant W8A8, LLaMA 7B": ("8", 11.51, 11.56),
    "round to nearest, OPT 125M": ("4", 27.65, 37.28),
    "GPTQ, OPT 125M": ("4", 27.65, 31.12),
    "GPTQ, OPT 125M, 3 bits": ("3", 27.65, 53.85),
    "AWQ, Llama 2 7B": ("4", 5.47, 5.60),
    "AWQ, Llama 2 7B, 3 bits": ("3", 5.47, 6.24),
}


def run_cell(subject: Any, method: Mapping[str, Any], seed: int, timed: bool) -> dict[str, Any]:
    """Quantizes by one method with one seed; quality, bits, bytes and, where `timed`, speed."""
    bits, recipe = method["train_bits"], list(method["recipe"])
    params = trained_for(subject, bits, seed) if bits else subject.params
    if method["by_layer"]:
        recipe = layer_by_layer(recipe, subject.config.n_layers)
    model = build(subject.config, policy=method["policy"], unroll=True)
    return measured(subject, model, packed(subject, model, params, recipe, seed), method["cache"], timed)


def cells_of(name: str, subject: Any, config: Mapping[str, Any]) -> list[Cell]:
    """One cell per method and seed; an encoder has no cache."""
    grid = []
    for method, given in config["methods"].items():
        if given["cache"] and subject.config.kind == "encoder":
            continue
        for seed in config["seeds"] if given["seeded"] else config["seeds"][:1]:
            settings = {"method": given, "subject": config[name], "base": tree.fingerprint(subject.params)}
            run = partial(run_cell, subject, given, seed, seed == config["seeds"][0])
            grid.append(Cell({"subject": name, "method": method, "seed": seed}, settings, run))
    return grid


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the tables and draws the figures."""
    compilation.use_cache()
    root = data_folder(config["data"])
    check(config["subjects"], methods=config["methods"])
    for method in config["methods"].values():
        weights.parse(method["recipe"])  # refused here
    for name in config["subjects"]:
        subject = SUBJECTS[name].make(config[name], root, workdir, console)
        results = sweep(cells_of(name, subject, config), workdir, console)
        report(name, results, subject.QUALITY, subject.SPEED, workdir, console)
    rows = [
        [name, bits, f"{before:.2f}", f"{after:.2f}", f"{math.log(after / before):+.3f}"]
        for name, (bits, before, after) in PUBLISHED.items()
    ]
    print_table("Published", ["", "bits", "perplexity", "quantized", "rise, nats"], rows, console=console)


def report(
    name: str,
    results: Sequence[Mapping[str, Any]],
    quality: Sequence[str],
    speed: Sequence[str],
    workdir: Path,
    console: Console,
) -> None:
    """The table of one subject (mean and spread over seeds), most bits first, and loss against bytes as a figure."""
    mean = lambda method, what: statistics.mean(r[what] for r in picked(results, method=method))  # noqa: E731
    before, rows, points = mean(PLAIN, "loss"), [], []
    for method in sorted(names(results, "method"), key=lambda m: (-mean(m, "bits"), mean(m, "loss"))):
        found = picked(results, method=method)
        scores = [spread([r[what] for r in found], 4 if "loss" in what else 3) for what in quality]
        rise = mean(method, "loss") - before
        speeds = [f"{found[0][what]:,.0f}" for what in speed]
        rows.append([method, f"{found[0]['bits']:.2f}", f"{found[0]['bytes']:,}", *scores, f"{rise:+.4f}", *speeds])
        points.append((method, found[0]["bytes"], mean(method, "loss")))
    header = ["", "bits of a weight", "bytes", *(HEADERS[w] for w in quality), "rise", *(HEADERS[w] for w in speed)]
    print_table(f"{name}, per second of processor time", header, rows, console=console)
    drawn = plots.points({name: points}, x_label="bytes of all weights", y_label="nats, held out", log_x=True)
    path = plots.save(drawn, workdir / f"quantize_{name.lower().replace('-', '')}.png")
    console.print(f"The figure: [bold]{path}[/]", soft_wrap=True)


if __name__ == "__main__":
    command.run(work, config="configs/quantize.py", workdir="runs/quantize")
