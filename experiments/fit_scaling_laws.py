"""Scaling laws fitted to points: Kaplan's power laws and Chinchilla's three approaches, with bootstrap intervals.

    python -m experiments.fit_scaling_laws --config=configs/fit_scaling_laws.py --workdir=runs/laws
    python -m experiments.fit_scaling_laws --config=configs/fit_scaling_laws.py:sweep --workdir=runs/scaling/laws

Points are the rows of a CSV file, or the cells of a folder of `experiments.scaling_sweep`. Leaves laws.json, which
`tools/compute_optimal.py` reads, and three figures.
"""

import csv
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

# Also as `python experiments/fit_scaling_laws.py`, where the folder of the script would be searched instead.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import data_folder
from research.core.names import meant
from research.report import contours, curves, print_table, save
from research.scaling import frontier, kaplan, laws
from research.scaling.frontier import Frontier, Parabola
from research.scaling.laws import Fit, Law, Points

COEFFICIENTS = ("A", "B", "E", "alpha", "beta")
ENVELOPE, ISOFLOP = "1 envelope", "2 IsoFLOP"


def read_csv(path: Path, columns: Mapping[str, str]) -> Points:
    """The rows of a file; `columns` names those of parameters, loss and either tokens or flops (C = 6 N D).

    Raises:
      ValueError: a column that is not there, or a value that is no number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    have = list(rows[0]) if rows else []
    for column in columns.values():
        if column not in have:
            raise ValueError(f"{path} has no column {column!r}{meant(column, have)}; have {have}")
    try:
        read = {name: np.array([float(row[column]) for row in rows]) for name, column in columns.items()}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if "tokens" not in read:
        read["tokens"] = read["flops"] / laws.FLOPS / read["parameters"]
    return Points(**read)


def read_sweep(folder: Path, count: str = "parameters") -> Points:
    """The finished cells of a sweep; `count` says which number is N.

    Raises:
      ValueError: no sweep, or none of its cells is finished.
    """
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "cells").glob("*.json"))]
    if not cells or not (folder / "sweep.json").is_file():
        raise ValueError(f"{folder} holds no finished cells of experiments.scaling_sweep")
    sizes = np.array([cell["settings"][count] for cell in cells], np.float64)
    return Points(sizes, np.array([cell["tokens"] for cell in cells]), np.array([cell["loss"] for cell in cells]))


def read(config: Mapping[str, Any]) -> tuple[Points, str]:
    """The points, without the `drop_highest` highest losses, and what they are."""
    given = config["points"]
    if given == "published":
        path, told = data_folder(config["data"]) / "chinchilla_extracted" / "svg_extracted_data.csv", "arXiv:2404.10102"
    else:
        path, told = Path(given), given
    if path.is_dir():
        points = read_sweep(path, config["count"])
    elif path.is_file():
        points = read_csv(path, config["columns"])
    else:
        raise ValueError(f"no points at {path}: give 'published', a CSV file or a folder of experiments.scaling_sweep")
    dropped = config["drop_highest"]
    kept = np.argsort(points.loss, kind="stable")[: len(points) - dropped]
    highest = f" without the {dropped} of the highest loss" if dropped else ""
    return points.take(np.sort(kept)), f"{len(points)} points{highest}, {told}"


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Fits everything, prints the tables, draws the figures and writes laws.json."""
    points, origin = read(config)
    console.print(origin, soft_wrap=True)
    fit = laws.parametric(points)
    # A draw is near the whole, so its fit goes from there.
    draws = drawn(points, lambda p: laws.parametric(p, starts=[fit.law]).law, config)
    isoflop = partial(frontier.isoflop, budgets=config["budgets"], tolerance=config["tolerance"])
    by: dict[str, Any] = {}
    for name, estimate in ((ENVELOPE, frontier.envelope), (ISOFLOP, lambda p: isoflop(p)[0])):
        try:
            by[name] = estimate(points), drawn(points, estimate, config)
        except ValueError as error:  # a sweep that is not done yet has its other laws already
            console.print(f"approach {name} is left out: {error}", soft_wrap=True)
    frontiers = dict(by)
    by["3 parametric"] = fit.law, draws
    print_table("Coefficients", *coefficients(points, fit, draws, config["compare"]), console=console)
    print_table("At the optimum", *allocations(by, config["optimal_for"]), console=console)
    power, both = kaplan.limits(points), kaplan.joint(points)
    print_table("Power laws without a floor", *powers(power, both), console=console)
    parabolas = isoflop(points)[1] if ISOFLOP in by else []
    for name, figure in figures(points, fit.law, frontiers, parabolas).items():
        console.print(f"{name}: [bold]{save(figure, workdir / f'{name}.png')}[/]", soft_wrap=True)
    told = {
        "origin": origin,
        "N": config["count"],
        "flops": [points.flops.min(), points.flops.max()],
        "parametric": {
            "law": vars(fit.law),
            "objective": fit.objective,
            "draws": [[float(f"{value:.6g}") for value in vars(law).values()] for law in draws],
        },
        "frontiers": {
            name: {"scale": found.scale, "a": found.a, "interval": laws.interval([one.a for one in several])}
            for name, (found, several) in frontiers.items()
        },
        "kaplan": {name: vars(law) for name, law in power.items()},
    }
    (workdir / "laws.json").write_text(json.dumps(told) + "\n", encoding="utf-8")


def drawn(points: Points, estimate: laws.Estimate, config: Mapping[str, Any]) -> list[Any]:
    """Bootstrapped estimates."""
    return laws.bootstrap(points, estimate, samples=config["samples"], seed=config["seed"])


Table = tuple[list[str], list[list[str]]]


def coefficients(points: Points, fit: Fit, draws: list[Law], compare: tuple[str, ...]) -> Table:
    """The fitted law with its intervals, and published ones with what the objective is at them on these points."""
    low = {name: laws.interval([getattr(law, name) for law in draws]) for name in COEFFICIENTS}
    named = {"fitted here": fit.law} | {name: laws.known(name).law for name in compare}
    rows = [
        [name, *(f"{getattr(law, c):.6g}" for c in COEFFICIENTS), f"{laws.objective(law, points):.9f}"]
        for name, law in named.items()
    ]
    rows.insert(1, ["95 % of bootstrap draws", *(f"{a:.4g} to {b:.4g}" for a, b in low.values()), ""])
    return ["law", "A", "B", "E", "α", "β", "objective"], rows


def allocations(by: Mapping[str, Any], budgets: tuple[float, ...]) -> Table:
    """Exponents of each approach, and N, D (with their 95 % intervals) for each budget."""
    rows = []
    for name, (found, several) in by.items():
        a = [exponents(one)[0] for one in several]
        row = [name, "{:.3f} / {:.3f}".format(*exponents(found)), "{:.3f} to {:.3f}".format(*laws.interval(a))]
        for flops in budgets:
            n, d = found.optimal(flops)[:2]
            low, high = laws.interval([one.optimal(flops)[0] for one in several])
            row.append(f"{n:.4g} ({low:.2g} to {high:.2g}), {d:.4g}; {d / n:.1f}")
        rows.append(row)
    return ["approach", "a / b", "a, 95 %", *(f"C = {flops:.3g}: N, D; D / N" for flops in budgets)], rows


def exponents(found: Law | Frontier) -> tuple[float, float]:
    """a and b of N ∝ C^a, D ∝ C^b."""
    return found.exponents if isinstance(found, Law) else (found.a, found.b)


def powers(by: Mapping[str, kaplan.PowerLaw], both: kaplan.Joint) -> Table:
    """Kaplan's laws on these points beside the published ones."""
    rows = [
        [f"L({name})", f"{law.scale:.3g}", f"{law.exponent:.4f}", f"{kaplan.PUBLISHED[name].exponent:.3f}"]
        for name, law in by.items()
    ]
    for name, law in (("N", both.parameters), ("D", both.tokens)):
        rows.append([f"L(N, D): {name}", f"{law.scale:.3g}", f"{law.exponent:.4f}", ""])
    return ["law", "scale", "exponent", "exponent of Kaplan et al."], rows


def figures(
    points: Points, law: Law, frontiers: Mapping[str, tuple[Frontier, Any]], parabolas: list[Parabola]
) -> dict[str, Any]:
    """IsoFLOP parabolas, the envelope of all sizes, and the fitted loss over C and N, as far as there are any."""
    c_label, n_label, loss = "C, FLOPs", "N, parameters", "loss, nats per token"
    c = np.geomspace(points.flops.min(), points.flops.max(), 80)
    n = np.geomspace(points.parameters.min() / 1.5, points.parameters.max() * 1.5, 80)
    z = law.loss(n[:, None], c[None] / laws.FLOPS / n[:, None])
    z = np.where(z <= 1.2 * points.loss.max(), z, np.nan)  # far from the points the law says nothing
    drawn = {
        "contour": contours(
            c, n, z, x_label=c_label, y_label=n_label,
            lines={"optimal N": (c, law.optimal(c).parameters)},
            marks={"trainings": (points.flops, points.parameters)},
        )
    }  # fmt: skip
    if parabolas:
        lines, marks = {}, {}
        for one in parabolas:
            name, sizes = f"C = {one.flops:.2g}", one.points.parameters
            smooth = np.geomspace(sizes.min(), sizes.max(), 60)
            lines[name], marks[name] = (smooth, one.at(smooth)), (sizes, one.points.loss)
        drawn["isoflop"] = curves(lines, x_label=n_label, y_label=loss, log_x=True, marks=marks, size=(7.2, 4.0))
    if ENVELOPE in frontiers:
        runs = {
            f"N = {group.parameters[0]:.3g}": tuple(
                zip(*sorted(zip(group.flops, group.loss, strict=True)), strict=True)
            )
            for group in spaced(frontier.sizes(points), 6)
        }
        lowest = {"lowest of all sizes": (frontiers[ENVELOPE][0].flops, frontiers[ENVELOPE][0].loss)}
        drawn["envelope"] = curves(lowest | runs, x_label=c_label, y_label=loss, log_x=True, size=(7.2, 4.0))
    return drawn


def spaced(groups: list[Points], count: int) -> list[Points]:
    """At most `count` groups, from the first to the last."""
    return [groups[i] for i in sorted({round(at) for at in np.linspace(0, len(groups) - 1, count)})]


if __name__ == "__main__":
    command.run(work, config="configs/fit_scaling_laws.py", workdir="runs/laws")
