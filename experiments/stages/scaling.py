"""Stage 22: where the pre-training of this job lies on scaling laws: what each says of its size and its tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.stages.stage import Done, Stage
from research import report
from research.scaling.laws import FLOPS, interval, known


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """The run, and for each law of the config: its loss here, and the best N and D of the same compute."""
    del folder
    trained = inputs["pretrain"].result
    parameters, tokens = trained["parameters"], trained["tokens"]
    flops = FLOPS * parameters * tokens
    found = {}
    for name in config["scaling"]["laws"]:
        law, origin, draws, span = known(name)
        best = law.optimal(flops)
        found[name] = {
            "origin": origin,
            "loss": law.loss(parameters, tokens),
            "optimum": best._asdict(),
            "interval": interval([one.optimal(flops).parameters for one in draws]) if draws else None,
            "beyond": span is not None and not span[0] <= flops <= span[1],
            "line": [[c, law.optimal(c).parameters] for c in np.geomspace(flops / 100, flops * 100, 9).tolist()],
        }
    measured = {"parameters": parameters, "tokens": tokens, "epochs": trained["epochs"], "flops": flops}
    return {"run": measured | {"loss": inputs["compression"].result["nats_per_token"]}, "laws": found}


def rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table: this run, then what each law says of its compute."""
    mine = result["run"]
    ratio = mine["tokens"] / mine["parameters"]
    out = [
        ["this run", f"{mine['parameters']:.3g}", f"{mine['tokens']:.3g}", f"{ratio:.1f}", f"{mine['loss']:.3f}", ""]
    ]
    for name, law in result["laws"].items():
        best = law["optimum"]
        spread = "" if law["interval"] is None else " ({:.2g} to {:.2g})".format(*law["interval"])
        told = (
            f"{best['parameters']:.3g}{spread}",
            f"{best['tokens']:.3g}",
            f"{best['tokens'] / best['parameters']:.1f}",
        )
        label = f"best by {Path(name).name}{', beyond its points' if law['beyond'] else ''}"
        out.append([label, *told, f"{best['loss']:.3f}", f"{law['loss']:.3f}"])
    return ["", "N", "D", "D / N", "loss", "loss of this run by the law"], out


def section(result: Mapping[str, Any]) -> str:
    """The part of the page: the table, and the optimal size over compute with this run as a point."""
    mine = result["run"]
    lines = {Path(name).name: tuple(zip(*law["line"], strict=True)) for name, law in result["laws"].items()}
    alone = {"this run": ([mine["flops"]], [mine["parameters"]])}
    drawing = report.curves(
        lines | alone, x_label="C, FLOPs", y_label="optimal N", log_x=True, log_y=True, size=(6.4, 3.2)
    )
    return report.section(
        "On scaling laws",
        report.table(*rows(result)),
        report.figure(report.svg(drawing), "The best number of parameters over compute, and this run."),
        *[report.note(f"{Path(name).name}: {law['origin']}") for name, law in result["laws"].items()],
        lead=f"C = 6 N D = {mine['flops']:.2e} FLOPs, the text read {mine['epochs']:.1f} times. A law's losses are of "
        "its own text and tokenizer: they compare ways to spend the compute with each other, not with the loss here. "
        "The published laws were fitted to far larger runs, on text that was never repeated.",
    )


STAGE = Stage(
    name="scaling",
    title="This run on scaling laws",
    run=run,
    needs=("pretrain", "compression"),
    reads=("scaling",),
)
