"""PPO on a real story writer: the reward rises, and what the KL to the untouched model has to do with it.

    python -m experiments.ppo --config=configs/ppo.py --workdir=runs/ppo
    python -m experiments.ppo --config=configs/ppo.py:tiny --workdir=runs/ppo_tiny

A cell is (KL, seed): a folder with its log, its checkpoints and the answers to a fixed set of prompts at every
evaluation, and one JSON file when it is done. Killed and started again, it goes on where it was, bit for bit.
"""

import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

# Also as `python experiments/ppo.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import names, picked, spread, sweep
from experiments.story_ppo import best_grid, grid
from experiments.story_world import SHOWN, make_world
from research.core import compilation
from research.evaluation.best_of import over_optimisation
from research.report import plots, print_table


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the table and draws the figures."""
    compilation.use_cache()
    world = make_world(config, workdir, console)
    results = sweep(grid(config, world, workdir, console), workdir, console)
    best = sweep(best_grid(config, world), workdir, console)
    report(results, workdir, console)
    if best:
        report_optimisation(results, best, workdir, console)


def report(results: list[dict[str, Any]], workdir: Path, console: Console) -> None:
    """The last evaluation beside the first one (mean and spread over seeds), and curves over iterations."""
    shown = {what: label for what, label in SHOWN.items() if what in results[0]["history"][0]}
    rows = [["before", *(spread([r["history"][0][what] for r in results[:1]]) for what in shown), ""]]
    for name in names(results, "kl"):
        found = picked(results, kl=name)
        last = [r["history"][-1] for r in found]
        ended = f"{statistics.mean(r['kl_coefficient'] for r in found):.3g}"
        rows.append([name, *(spread([one[what] for one in last]) for what in shown), ended])
    seeds = len(names(results, "seed"))
    print_table(f"PPO, {seeds} seeds", ["KL", *shown.values(), "coefficient at last"], rows, console=console)
    for what, label in shown.items():
        series, bands = {}, {}
        for name in names(results, "kl"):
            runs = [{one["iteration"]: one[what] for one in r["history"]} for r in picked(results, kl=name)]
            at = sorted(set.intersection(*(set(values) for values in runs)))
            each = np.array([[values[i] for i in at] for values in runs])
            series[name] = (at, each.mean(0).tolist())
            bands[name] = (each.min(0).tolist(), each.max(0).tolist())
        drawn = plots.curves(series, x_label="iteration", y_label=label, bands=bands)
        path = plots.save(drawn, workdir / f"ppo_{what}.png")
        console.print(f"The figure: [bold]{path}[/]", soft_wrap=True)


def report_optimisation(
    results: list[dict[str, Any]], best: list[dict[str, Any]], workdir: Path, console: Console
) -> None:
    """Score and gold against √KL, best-of-n beside PPO, and the laws of over-optimisation fitted to the gains."""
    rows = []
    for what in ("score", "gold"):
        if what not in best[0]["history"][0]:
            continue
        series = {}
        for name in (*names(results, "kl"), "best of n"):
            found = picked([*results, *best], kl=name)
            kl, value = (np.mean([[one[x] for one in r["history"]] for r in found], axis=0) for x in ("kl", what))
            series[name] = (np.sqrt(np.maximum(kl, 0)).tolist(), value.tolist())
            law = "best_of_n" if name == "best of n" else "rl"
            on = kl > 0.01
            if on.sum() > 1:
                alpha, beta = over_optimisation(kl[on], (value - value[0])[on], law)
                rows.append([f"{name}: {what}", f"{alpha:.3f}", f"{beta:.3f}", f"{kl.max():.1f}"])
        drawn = plots.curves(series, x_label="√KL to the untouched model", y_label=f"mean {what}")
        path = plots.save(drawn, workdir / f"optimisation_{what}.png")
        console.print(f"The figure: [bold]{path}[/]", soft_wrap=True)
    title = "Gain against d = √KL: best-of-n d (α − β d), PPO d (α − β ln d)"
    print_table(title, ["", "α", "β", "most KL, nats"], rows, console=console)


if __name__ == "__main__":
    command.run(work, config="configs/ppo.py", workdir="runs/ppo")
