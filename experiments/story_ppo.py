"""PPO of a story writer, and the best of its n answers: the cells that two commands share."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments.cells import Cell, run_folder
from experiments.story_world import WORLD, Evaluation, World, distinct, memory, over_iterations
from research import weights
from research.evaluation.best_of import best_of_n, best_of_n_kl
from research.recipes.ppo import PPO, SAID, ActorCritic
from research.recipes.ppo_run import Schedule, Trainer, run, start
from research.recipes.rollouts import rows, scored
from research.training import log
from research.training.checkpoint import Checkpoints

LEARNING = ("peft", "trunk", "ppo", "schedule", "stop", "optimizer")


def run_cell(
    config: Mapping[str, Any], world: World, kl: Mapping[str, float], seed: int, folder: Path, console: Console
) -> dict[str, Any]:
    """One run of PPO; its evaluations."""
    key, ppo = jax.random.key(seed), PPO(**config["ppo"])
    recipe = config["peft"]
    pair = ActorCritic(world.model, "adapter" if recipe else "copy")
    policy = weights.attach(world.base, recipe, jax.random.fold_in(key, 0)) if recipe else world.base
    params = pair.begin(policy, trunk=config["trunk"])
    learns = pair.learns(params, weights.trainable(policy, recipe) if recipe else True)
    schedule = Schedule(**{**config["schedule"], **kl, "stop": config["stop"]})
    rule = config["optimizer"]
    step, state, frozen = start(pair, ppo, schedule, params, learns, rule, jax.random.fold_in(key, 1))
    trainer = Trainer(pair, ppo, world.writer, world.reward, world.prompts, step, schedule, seed)
    evaluation = Evaluation(world, lambda p, b: trainer.read(p, b)[::2], folder / "answers", ppo.temperature)

    def show(n: int, facts: Mapping[str, float], rollout: Any) -> None:
        told = "  ".join(f"{name} {facts[name]:.4g}" for name in ("score", "kl", "entropy", "clip_fraction"))
        sample = f"{rollout.prompts[0]}|{rollout.answers[0]}"
        console.print(f"{folder.name} {n}/{schedule.iterations}  {told}  {sample!r:.120}", markup=False, soft_wrap=True)

    stored = json.loads(json.dumps(dict(config)))
    with log.Logger(folder) as logger, Checkpoints(folder / "checkpoints", config=stored) as checkpoints:
        parts: dict[str, Any] = {"checkpoints": checkpoints, "logger": logger, "evaluate": evaluation, "show": show}
        state, ended = run(trainer, state, frozen, **parts)
    history = evaluation.read(ended.iteration)
    over_iterations(folder.name, history, console)
    first = (world.prompts * schedule.minibatch)[: schedule.minibatch]
    batch = rows(world.model, first, [[1]] * len(first), config["prompt_length"], config["new_tokens"])
    said = dict.fromkeys(SAID, batch["loss_mask"])
    held = memory(step, state, frozen, batch | said)
    return {"stopped": ended.stopped, "kl_coefficient": ended.kl_coefficient, "memory": held, "history": history}


def best_cell(config: Mapping[str, Any], world: World, seed: int) -> dict[str, Any]:
    """The untouched model's best answers to the held-out prompts, by the reward, for n = 1, 2, 4, ... ."""
    draws = config["best_of"]
    drawn = [
        world.writer(world.base, world.held_out, jax.random.fold_in(jax.random.key(seed), i)) for i in range(draws)
    ]
    scores = np.stack([scored(world.reward, one) for one in drawn], axis=1)
    values = {"score": scores, "nll": np.stack([-one.sampled.sum(1) / one.lengths for one in drawn], axis=1)}
    if world.gold is not None:
        values["gold"] = np.stack([scored(world.gold, one) for one in drawn], axis=1)
    history = []
    for n in (2**k for k in range(draws.bit_length())):
        best = scores[:, :n].argmax(axis=1)
        answers = [drawn[draw].answers[row] for row, draw in enumerate(best)]
        means = {name: best_of_n(scores, each, n) for name, each in values.items()}
        history.append({"n": n, "kl": best_of_n_kl(n), **means, "distinct": distinct(answers), "answers": answers[:4]})
    return {"history": history}


def grid(config: Mapping[str, Any], world: World, workdir: Path, console: Console) -> list[Cell]:
    """A cell for each KL setting and seed."""
    chosen = {name: config[name] for name in (*WORLD, *LEARNING) if name != "data"}
    cells = []
    for seed in config["seeds"]:
        for name, kl in config["kl"].items():
            at, settings = {"kl": name, "seed": seed}, {"kl_settings": kl, **chosen}
            folder = run_folder(workdir, at, settings)
            cells.append(Cell(at, settings, partial(run_cell, config, world, kl, seed, folder, console)))
    return cells


def best_grid(config: Mapping[str, Any], world: World) -> list[Cell]:
    """A cell of best-of-n for each seed; none where `best_of` is 0."""
    chosen = {name: config[name] for name in (*WORLD, "best_of") if name != "data"}
    seeds = config["seeds"] if config["best_of"] else ()
    return [Cell({"kl": "best of n", "seed": s}, chosen, partial(best_cell, config, world, s)) for s in seeds]
