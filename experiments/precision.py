"""What precision costs: training runs under every policy, and where the numbers of trained models leave float16.

    python -m experiments.precision --config=configs/precision.py --workdir=runs/precision

A cell is (policy, seed), or a trained model that is looked at: one JSON file each. Started again, only what is missing
is done.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

# Also as `python experiments/precision.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, names, picked, spread, sweep
from experiments.ranges import Site, backward_shares, overflow, peaks, watch
from research.core import compilation, tree
from research.core.dtypes import Policy
from research.data import load_tokenizer
from research.data.build import build_rows
from research.data.sources import Batches, Rows, Stream, one_pass
from research.interop import load_pretrained
from research.models import Model, ModelConfig, build, preset
from research.recipes.pretrain import language_model_loss
from research.report import plots, print_table
from research.training import log, loss_scale, optim
from research.training.evaluate import make_evaluate
from research.training.fit import Diverged, fit
from research.training.state import create
from research.training.step import make_step

LARGEST = float(jnp.finfo(jnp.float16).max)  # 65504
OBJECTIVES = {"decoder": "causal", "encoder": "mlm", "encoder_decoder": "span"}


def run_cell(
    config: Mapping[str, Any],
    choice: Mapping[str, Any],
    seed: int,
    described: ModelConfig,
    rows: Mapping[str, Rows],
    folder: Path,
) -> dict[str, Any]:
    """Trains under one policy with one seed; where the run stops for a number that is not finite, the loss is None."""
    model = build(described, policy=choice["policy"], unroll=True)
    key, shapes = jax.random.key(seed), model.abstract()
    scale = loss_scale.make(choice.get("loss_scale", {}), model.policy, shapes)
    optimizer = optim.make(config["optimizer"], shapes, steps=config["steps"])
    init = lambda: model.init(jax.random.fold_in(key, 0))  # noqa: E731
    state, _ = create(init, optimizer, rng=jax.random.fold_in(key, 1), loss_scale=scale)
    held = tree.nbytes(state.params), tree.nbytes(state.opt_state)
    loss_fn = language_model_loss(model)
    step, spent = timed(make_step(loss_fn, optimizer))
    source = Batches(Stream(rows["train"], seed), config["batch_size"])
    loss, stopped = None, None
    with log.Logger(folder) as logger:
        try:
            result = fit(state, None, step, source, steps=config["steps"], logger=logger, progress=False)
            few = list(one_pass(rows["heldout"], config["batch_size"]))[: config["heldout_batches"]]
            loss = make_evaluate(loss_fn, few)(result.state.params, None)["loss"]
        except Diverged as reason:
            stopped = str(reason)
    records = log.read(folder / "metrics.jsonl")
    return {
        "loss": loss,
        "stopped": stopped,
        "steps": len(records),
        "skipped": records[-1].get("skipped_steps", 0.0),
        "scales": [record["loss_scale"] for record in records if "loss_scale" in record],
        "train": [record["loss"] for record in records],
        "weights_bytes": held[0],
        "optimizer_bytes": held[1],
        "cpu_seconds": statistics.median(spent[1:] or spent),
    }


def timed(step: Callable[..., Any]) -> tuple[Any, list[float]]:
    """The step, and a list that gets the processor seconds of each call: other work on the machine hardly counts."""
    spent: list[float] = []

    def run(*args: Any) -> Any:
        before = time.process_time()
        out = jax.block_until_ready(step(*args))
        spent.append(time.process_time() - before)
        return out

    return run, spent


def look(config: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The numbers that a trained model makes on held-out text, forward and backward.

    peaks: the largest magnitudes in float32, by pass, stack, part and layer. first: where a program that keeps nothing
    in float32 makes its first infinity, per type. shares: of the gradients that the policies `f16` and `bf16` round,
    how many become zero and how many infinite, per scale of the loss.
    """
    described, params, _ = load_pretrained(folder)
    section = {**config["data"], "objective": OBJECTIVES[described.kind]}
    rows = build_rows(section, load_tokenizer(folder), "heldout")
    batch = next(iter(one_pass(rows, config["probe_rows"])))
    one = jnp.float32(1)
    exact = watch(gradient(build(described)), params, batch, one)
    largest = {
        f"{name}, {stack}, {part}": layers
        for name, backward in (("forward", False), ("backward", True))
        for (stack, part), layers in peaks(exact, backward).items()
    }
    first = {}
    for dtype in ("float16", "bfloat16"):
        site = overflow(watch(gradient(build(described)), params, batch, one, round_to=dtype))
        first[dtype] = None if site is None else named(site)
    above = {named(site): numbers.peak for site, numbers in exact.items() if numbers.peak > LARGEST}
    shares = {}
    for name in ("f16", "bf16"):
        program, dtype = gradient(build(described, policy=name)), str(Policy.parse(name).compute)
        shares[name] = {
            str(scale): backward_shares(watch(program, params, batch, jnp.float32(scale)), dtype)
            for scale in config["probe_scales"]
        }
    return {"peaks": largest, "first": first, "above": above, "shares": shares}


def gradient(model: Model) -> Callable[..., Any]:
    """(params, batch, scale) -> the gradient of the scaled mean loss."""
    loss_fn = language_model_loss(model)

    def scaled(params: Any, batch: Mapping[str, jax.Array], scale: jax.Array) -> jax.Array:
        total, aux = loss_fn(params, batch, None)
        return total * (scale / aux["weight"])

    return jax.grad(scaled)


def named(site: Site) -> str:
    """A site in words: "forward: encoder layer 1, attention_norm, reduce_sum"."""
    stack = f"{site.stack} " if site.stack else ""
    layer = f"layer {site.layer}, " if site.layer >= 0 else ""
    return f"{'backward' if site.backward else 'forward'}: {stack}{layer}{site.module}, {site.operation}"


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the tables and draws the figures."""
    compilation.use_cache()
    pieces = load_tokenizer(config["tokenizer"])
    settings = dict(config["model"])
    described = preset(settings.pop("preset")).replace(vocab_size=pieces.vocab_size, **settings)
    rows = {split: build_rows(config["data"], pieces, split) for split in ("train", "heldout")}
    probe = {name: config[name] for name in ("data", "probe_rows", "probe_scales")}
    apart = ("policies", "seeds", "bases", "probe_rows", "probe_scales")
    common = {name: value for name, value in config.items() if name not in apart}
    runs = [
        Cell(
            {"policy": name, "seed": seed},
            {"choice": choice, **common},
            partial(run_cell, config, choice, seed, described, rows, workdir / "runs" / f"{name}, seed {seed}"),
        )
        for seed in config["seeds"]
        for name, choice in config["policies"].items()
    ]
    looks = [
        Cell({"base": name}, {"folder": at, **probe}, partial(look, config, at)) for name, at in config["bases"].items()
    ]
    report(sweep(looks, workdir, console), sweep(runs, workdir, console), workdir, console)


def report(looks: Sequence[Any], runs: Sequence[Any], workdir: Path, console: Console) -> None:
    """One table per part on the terminal; figures of scales, magnitudes and rounded gradients."""
    rows = []
    for name in names(runs, "policy"):
        found = picked(runs, policy=name)
        losses, one = [r["loss"] for r in found if r["loss"] is not None], found[0]
        ends = [r["steps"] for r in found if r["loss"] is None]
        quality = spread(losses, 4) if losses else "-"
        stopped = f"at step {', '.join(map(str, ends))}" if ends else "no"
        used = [scale for r in found for scale in r["scales"]]
        scales = f"2^{math.log2(min(used)):.0f} to 2^{math.log2(max(used)):.0f}" if used else "-"
        skipped = f"{statistics.mean(r['skipped'] for r in found):.1f} of {max(r['steps'] for r in found)}"
        took = f"{1000 * statistics.median(r['cpu_seconds'] for r in found):.0f} ms"
        sizes = [f"{one[f'{part}_bytes'] / 2**20:.1f} MiB" for part in ("weights", "optimizer")]
        rows.append([name, quality, stopped, skipped, scales, took, *sizes])
    header = ["policy", "held-out loss", "stopped", "steps skipped", "scale", "CPU time, a step", "weights", "moments"]
    print_table(f"Training, seeds {names(runs, 'seed')}", header, rows, console=console)
    scales = {
        f"{r['policy']}, seed {r['seed']}".removeprefix("f16, dynamic scale, "): (
            list(range(1, len(r["scales"]) + 1)),
            r["scales"],
        )
        for r in runs
        if len(set(r["scales"])) > 1
    }
    if scales:
        drawn = plots.curves(scales, x_label="step", y_label="scale of the mean loss", log_y=True)
        console.print(f"The scales: [bold]{plots.save(drawn, workdir / 'precision_scale.png')}[/]", soft_wrap=True)
    if looks:
        report_looks(looks, workdir, console)


def report_looks(looks: Sequence[Mapping[str, Any]], workdir: Path, console: Console) -> None:
    """Where trained models leave float16: a table, and the figures of magnitudes and of roundings, backward."""
    rows, lines, shares = [], {}, {}
    for found in looks:
        top = max(found["above"], key=found["above"].get, default=None)
        largest = "-" if top is None else f"{found['above'][top]:,.0f} ({top})"
        rows.append(
            [found["base"], *(found["first"][dtype] or "nowhere" for dtype in ("float16", "bfloat16")), largest]
        )
        for name, layers in found["peaks"].items():
            direction, stack, part = name.split(", ")
            if direction == "forward" and part == "norms":
                label = stack if stack == found["base"] else f"{found['base']}: {stack}"
                lines[label] = [int(i) for i in layers], list(layers.values())
        by_scale = found["shares"]["f16"]
        for share, name in enumerate(("zero", "infinite")):
            drawn = [100 * both[share] for both in by_scale.values()]
            shares[f"{found['base']}: {name}"] = [float(scale) for scale in by_scale], drawn
    lost = max(share for found in looks for both in found["shares"]["bf16"].values() for share in both)
    console.print(f"Of what the backward pass rounds to bfloat16, at most {100 * lost:.3f} % become zero or infinite")
    header = ["trained model", "all in float16: first overflow", "all in bfloat16", "largest above 65504, in float32"]
    print_table("Where the numbers leave float16", header, rows, console=console)
    level = {"largest float16": LARGEST}
    what, wide = "largest number of the norms", (9.0, 3.6)
    drawn = plots.curves(lines, x_label="layer", y_label=what, log_y=True, levels=level, size=wide)
    console.print(f"The magnitudes: [bold]{plots.save(drawn, workdir / 'precision_ranges.png')}[/]", soft_wrap=True)
    x, y = "scale of the mean loss", "% of roundings to float16, backward"
    drawn = plots.curves(shares, x_label=x, y_label=y, log_x=True, size=wide)
    console.print(f"The gradients: [bold]{plots.save(drawn, workdir / 'precision_gradients.png')}[/]", soft_wrap=True)


if __name__ == "__main__":
    command.run(work, config="configs/precision.py", workdir="runs/precision")
