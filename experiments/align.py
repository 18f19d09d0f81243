"""SFT, best-of-n, PPO, DPO and IPO of one story writer under one reward, compared at equal KL by a better judge.

    python -m experiments.align --config=configs/align.py --workdir=runs/ppo
    python -m experiments.align --config=configs/align.py:tiny --workdir=runs/align_tiny

PPO and best-of-n are the cells of `experiments.ppo`: in the same workdir they are not done twice. A killed run goes on
from its last checkpoint, bit for bit.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

# Also as `python experiments/align.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, names, picked, run_folder, spread, sweep
from experiments.story_ppo import best_grid
from experiments.story_ppo import grid as ppo_grid
from experiments.story_world import SHOWN, WORLD, Evaluation, World, make_world, memory, over_iterations
from research.core import compilation
from research.core.types import Array, Batch, Params
from research.data.rows import ArrayRows
from research.data.sources import Batches, Stream
from research.models import Model
from research.ops.cross_entropy import token_logprobs
from research.recipes.dpo import preference_loss, reference_logprobs
from research.recipes.pretrain import language_model_loss
from research.recipes.rollouts import rows, scored
from research.report import plots, print_table
from research.training import log, optim
from research.training.checkpoint import Checkpoints
from research.training.fit import fit
from research.training.state import create
from research.training.step import LossFn, make_step

PARTS = {
    "best of n": "policy, reward; n answers at every use",
    "SFT on the best": "policy; answers sampled and scored once",
    "DPO": "policy, reference (read once); pairs",
    "IPO": "policy, reference (read once); pairs",
}
OF_PPO = "policy, reference, value, reward; sampling throughout"


def make_pairs(world: World, answers: int, seed: int) -> dict[str, Any]:
    """The untouched model's best and worst of some answers to every prompt, by the reward, as token ids."""
    drawn, scores = [], []
    for i in range(answers):
        rollout = world.writer(world.base, world.prompts, jax.random.fold_in(jax.random.key(1000 + seed), i))
        scores.append(scored(world.reward, rollout))
        on = rollout.batch["loss_mask"] > 0
        drawn.append([ids[m].tolist() for ids, m in zip(rollout.batch["targets"], on, strict=True)])
    best, worst = np.argmax(scores, axis=0), np.argmin(scores, axis=0)
    kept = [i for i in range(len(world.prompts)) if drawn[best[i]][i] != drawn[worst[i]][i]]
    return {
        "prompts": [world.prompts[i] for i in kept],
        "chosen": [drawn[best[i]][i] for i in kept],
        "rejected": [drawn[worst[i]][i] for i in kept],
        "gap": float(np.mean(np.max(scores, axis=0) - np.min(scores, axis=0))),
    }


def training_rows(world: World, pairs: Mapping[str, Any], loss: str, most: int | None = None) -> ArrayRows:
    """Rows of the chosen answers for "sft", else of both, [2, T], with what the untouched model says of them."""
    shape = world.writer.prompt_length, world.writer.new_tokens
    chosen, rejected = (
        rows(world.model, pairs["prompts"][:most], pairs[x][:most], *shape) for x in ("chosen", "rejected")
    )
    if loss == "sft":
        return ArrayRows(chosen)
    both = ArrayRows({name: np.stack([chosen[name], rejected[name]], axis=1) for name in chosen})
    said = reference_logprobs(world.model, world.base, both)
    return ArrayRows({**both.arrays, "reference": said, "preferred": np.ones(len(both), np.float32)})


def loss_of(model: Model, method: Mapping[str, Any]) -> LossFn:
    """The loss that a method of the config names."""
    if method["loss"] == "sft":
        return language_model_loss(model)
    return preference_loss(model, method["loss"], reference="batch", **method["options"])


@partial(jax.jit, static_argnums=0)
def _said(model: Model, params: Params, base: Params, batch: Batch) -> list[Array]:
    found = []
    for one in (params, base):
        features, table, bias, cap = model.projection(one, model.apply(one, batch).hidden)
        found.append(token_logprobs(features, table, batch["targets"], bias=bias, cap=cap))
    return found


def run_cell(
    config: Mapping[str, Any],
    world: World,
    name: str,
    seed: int,
    pairs: Mapping[str, Any],
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    """One training on pairs; its evaluations, and the bytes of its step."""
    settings, method = config["tuning"], config["methods"][name]
    held = training_rows(world, pairs, method["loss"])
    optimizer = optim.make(settings["optimizer"], world.base, steps=settings["steps"])
    state, _ = create(world.base, optimizer, rng=jax.random.key(seed))
    step = make_step(loss_of(world.model, method), optimizer)
    source = Batches(Stream(held, seed), settings["batch_size"])
    said = lambda params, batch: _said(world.model, params["policy"], world.base, batch)  # noqa: E731
    evaluation = Evaluation(world, said, folder / "answers")
    with log.Logger(folder) as logger, Checkpoints(folder / "checkpoints", keep=1) as checkpoints:
        done = max(checkpoints.steps(), default=0)
        if not done:
            evaluation({"policy": state.params}, 0)
        for at in range(settings["evaluate_every"], settings["steps"] + 1, settings["evaluate_every"]):
            if at < done:
                continue
            parts: dict[str, Any] = {"checkpoints": checkpoints, "logger": logger, "title": f"{name} {seed}"}
            ended = fit(state, None, step, source, steps=at, **parts)
            state = ended.state
            if ended.stopped == "signal":
                raise KeyboardInterrupt("stopped by a signal; all is saved")
            evaluation({"policy": state.params}, at)
    history = evaluation.read(settings["steps"])
    over_iterations(folder.name, history, console)
    return {"history": history, "memory": memory(step, state, None, source.batch(0)), "pairs": len(held)}


def certain_cell(config: Mapping[str, Any], world: World, loss: Mapping[str, Any], pairs: Mapping[str, Any]) -> dict:
    """h = log-ratio of the better answers minus that of the worse ones while a few pairs are learned by heart."""
    settings = config["certain"]
    held = training_rows(world, pairs, loss["loss"], settings["pairs"])
    rule = {"learning_rate": settings["learning_rate"], "schedule": "constant", "clip": 1.0}
    optimizer = optim.make(rule, world.base, steps=settings["steps"])
    state, _ = create(world.base, optimizer, rng=jax.random.key(0))
    step = make_step(loss_of(world.model, loss), optimizer)
    (scale,) = loss["options"].values()
    curve: list[list[float]] = []
    for at in range(settings["steps"]):
        state, metrics = step(state, None, held.arrays)
        if at % max(1, settings["steps"] // 60) == 0 or at == settings["steps"] - 1:
            curve.append([at, *(float(metrics[name]) / scale for name in ("margin", "reward_chosen"))])
    answered = world.writer(state.params, world.held_out, jax.random.key(0))
    mine, base = (np.asarray(x) for x in _said(world.model, state.params, world.base, answered.batch))
    on = answered.batch["loss_mask"]
    kl = float(((mine - base) * on).sum(1).mean())
    return {"curve": curve, "kl": kl, "nll": float(-(base * on).sum() / on.sum()), "answers": answered.answers[:3]}


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the tables and draws the figures."""
    compilation.use_cache()
    world = make_world(config, workdir, console)
    chosen = {name: config[name] for name in (*WORLD, "pairs") if name != "data"}
    answers = config["pairs"]["answers"]
    pairs = sweep(
        [Cell({"made": "pairs", "seed": s}, chosen, partial(make_pairs, world, answers, s)) for s in config["seeds"]],
        workdir,
        console,
    )
    grid = []
    for seed, made in zip(config["seeds"], pairs, strict=True):
        for name, method in config["methods"].items():
            at, settings = {"kl": name, "seed": seed}, {**chosen, "tuning": config["tuning"], "method": method}
            folder = run_folder(workdir, at, settings)
            grid.append(Cell(at, settings, partial(run_cell, config, world, name, seed, made, folder, console)))
    certain = [
        Cell(
            {"certain": name},
            {**chosen, "settings": config["certain"], "loss": loss},
            partial(certain_cell, config, world, loss, pairs[0]),
        )
        for name, loss in config["certain"]["losses"].items()
    ]
    tuned = sweep(grid, workdir, console)
    learned = sweep(ppo_grid(config, world, workdir, console), workdir, console)
    best = sweep(best_grid(config, world), workdir, console)
    report(config["at_kl"], [*best, *tuned, *learned], workdir, console)
    report_certain(sweep(certain, workdir, console), workdir, console)


def at_kl(history: Sequence[Mapping[str, Any]], kl: float) -> dict[str, float] | None:
    """Every figure where the KL is first reached, linear between evaluations; None: never reached."""
    for before, after in zip(history, history[1:], strict=False):
        if before["kl"] < kl <= after["kl"]:
            share = (kl - before["kl"]) / (after["kl"] - before["kl"])
            both = [name for name in (*SHOWN, "cpu_seconds") if name in before]
            return {name: before[name] + share * (after[name] - before[name]) for name in both}
    return None


def report(kls: Sequence[float], results: list[dict[str, Any]], workdir: Path, console: Console) -> None:
    """The methods at every chosen KL, and the gold judge against √KL."""
    shown = {what: label for what, label in SHOWN.items() if what != "kl" and what in results[0]["history"][0]}
    heads = ["method", *shown.values(), "CPU s", "MB"]
    for kl in kls:
        rows = []
        for name in names(results, "kl"):
            runs = picked(results, kl=name)
            reached = [found for r in runs if (found := at_kl(r["history"], kl)) is not None]
            held = f"{runs[0]['memory'] / 1e6:.0f}" if "memory" in runs[0] else ""
            if not reached:
                most = max(one["kl"] for r in runs for one in r["history"])
                rows.append([name, f"never (at most {most:.2g} nats)", *[""] * len(shown), held])
                continue
            label = name if len(reached) == len(runs) else f"{name} ({len(reached)} of {len(runs)})"
            seconds = spread([r["cpu_seconds"] for r in reached], 0) if "cpu_seconds" in reached[0] else ""
            rows.append([label, *(spread([r[what] for r in reached]) for what in shown), seconds, held])
        print_table(f"Where the KL is {kl:g} nats", heads, rows, console=console)
    needed = [[name, PARTS.get(name, OF_PPO)] for name in names(results, "kl")]
    print_table(
        "What each needs (CPU s, MB: of its training, without the reward model)",
        ["method", "parts"],
        needed,
        console=console,
    )
    what = "gold" if "gold" in shown else "score"
    series = {}
    for name in names(results, "kl"):
        runs = [r["history"] for r in picked(results, kl=name)]
        kl, value = (np.mean([[one[x] for one in r] for r in runs], axis=0) for x in ("kl", what))
        series[name] = (np.sqrt(np.maximum(kl, 0)).tolist(), value.tolist())
    drawn = plots.curves(series, x_label="√KL to the untouched model", y_label=shown[what])
    path = plots.save(drawn, workdir / "align.png")
    console.print(f"The figure: [bold]{path}[/]", soft_wrap=True)


def report_certain(results: list[dict[str, Any]], workdir: Path, console: Console) -> None:
    """How far the two answers of pairs without doubt come apart."""
    rows = [
        [
            r["certain"],
            *(f"{x:.1f}" for x in r["curve"][-1][1:]),
            f"{r['kl']:.1f}",
            f"{r['nll']:.2f}",
            r["answers"][0][:80],
        ]
        for r in results
    ]
    heads = ["loss", "h", "log-ratio of the better", "KL of new answers", "their NLL", "one of them"]
    print_table("A few pairs, learned by heart", heads, rows, console=console)
    series = {r["certain"]: tuple(zip(*((at, h) for at, h, _ in r["curve"]), strict=True)) for r in results}
    drawn = plots.curves(series, x_label="step", y_label="h, nats")
    path = plots.save(drawn, workdir / "certain.png")
    console.print(f"The figure: [bold]{path}[/]", soft_wrap=True)


if __name__ == "__main__":
    command.run(work, config="configs/align.py", workdir="runs/ppo")
