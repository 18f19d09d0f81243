"""PPO on a real story writer: the reward rises, and what the KL to the untouched model has to do with it.

    python -m experiments.ppo --config=configs/ppo.py --workdir=runs/ppo
    python -m experiments.ppo --config=configs/ppo.py:tiny --workdir=runs/ppo_tiny

A cell is (KL, seed): a folder with its log, its checkpoints and the answers to a fixed set of prompts at every
evaluation, and one JSON file when it is done. Killed and started again, it goes on where it was, bit for bit.
"""

import importlib
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

# Also as `python experiments/ppo.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, data_folder, names, picked, spread, sweep
from experiments.loading import load
from experiments.sentiment import Sentiment
from research import weights
from research.core import compilation, tree
from research.decoding import Sampling, generate
from research.models import Model, build
from research.recipes.ppo import PPO, ActorCritic, ppo_loss
from research.recipes.ppo_run import Schedule, Trainer, run
from research.recipes.rollouts import Reward, Writer, scored
from research.report import plots, print_table
from research.training import log, optim
from research.training import state as states
from research.training.checkpoint import Checkpoints
from research.training.step import make_step

SHOWN = {"score": "score", "kl": "KL, nats", "nll": "NLL, untouched model", "distinct": "distinct 2-grams"}


@dataclass(frozen=True)
class World:
    """What all cells share: the policy as it was, the prompts to learn from and those held out, the reward."""

    model: Model
    base: Any
    tokenizer: Any
    prompts: list[list[int]]
    held_out: list[list[int]]
    reward: Reward


def openings(model: Model, params: Any, tokenizer: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The first four to nine words of stories that the model writes at temperature 1, each once."""
    count = settings["count"]
    made = generate(
        model,
        params,
        [[tokenizer.bos_id]] * count,
        max_new_tokens=settings["tokens"],
        sampling=Sampling(temperature=1.0),
        stop_tokens=(tokenizer.bos_id,),
        tokenizer=tokenizer,
        key=settings["seed"],
        logprobs=False,
    )
    words = [text.split()[: 4 + i % 6] for i, text in enumerate(made.texts or [])]
    return {"texts": list(dict.fromkeys(" ".join(some) for some in words if some))}


def make_reward(config: Mapping[str, Any], root: Path, workdir: Path, console: Console) -> Reward:
    """ "sst2": a tuned encoder; "count TEXT": how often the text stands in the answer; "module:function": any other."""
    name = config["reward"]
    if name == "sst2":
        return Sentiment.make(config["sentiment"], root, workdir, console)
    if name.startswith("count "):
        wanted = name.removeprefix("count ")
        return lambda prompts, answers: [float(answer.count(wanted)) for answer in answers]
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"reward {name!r} is neither 'sst2', 'count TEXT' nor 'module:function': {error}") from None


def make_world(config: Mapping[str, Any], workdir: Path, console: Console) -> World:
    """Reads the policy, lets it write the prompts, and makes the reward."""
    root = data_folder(config["data"])
    loaded = load(config["policy"] or str(root / "stories260K" / "checkpoint_v1.bin"), None, "f32")
    made = {**config["prompts"], "base": tree.fingerprint(loaded.params)}
    draw = partial(openings, loaded.model, loaded.params, loaded.tokenizer, config["prompts"])
    texts = sweep([Cell({"made": "openings"}, made, draw)], workdir, console)[0]["texts"]
    coded = [[loaded.tokenizer.bos_id, *loaded.tokenizer.encode(text)] for text in texts]
    fitting = [ids for ids in coded if len(ids) <= config["prompt_length"]]
    held = config["held_out"]
    if len(fitting) <= held:
        raise ValueError(f"{len(fitting)} prompts are too few to hold {held} of them out; raise prompts.count")
    reward = make_reward(config, root, workdir, console)
    model = build(loaded.model.config, unroll=True)
    return World(model, tree.stack(loaded.params), loaded.tokenizer, fitting[held:], fitting[:held], reward)


def distinct(texts: Sequence[str], n: int = 2) -> float:
    """Different n-grams of words over all of them: *A Diversity-Promoting Objective Function*, Li et al., 2016."""
    grams = [tuple(words[i : i + n]) for words in map(str.split, texts) for i in range(len(words) - n + 1)]
    return len(set(grams)) / max(len(grams), 1)


@dataclass(frozen=True)
class Evaluation:
    """Answers to the held-out prompts with the same noise at every evaluation, kept in `folder`."""

    trainer: Trainer
    prompts: list[list[int]]
    folder: Path

    def __call__(self, params: Any, iteration: int) -> dict[str, float]:
        temperature, writer = self.trainer.ppo.temperature, self.trainer.writer
        answered = writer(params["policy"], self.prompts, jax.random.key(0), temperature=temperature)
        scores = scored(self.trainer.reward, answered)
        logprobs, _, reference = self.trainer.read(params, answered.batch)
        on = answered.batch["loss_mask"] > 0
        values = {
            "score": float(scores.mean()),
            "kl": float(((logprobs - reference) * on).sum(1).mean()),
            "nll": float(-reference[on].mean()),
            "distinct": distinct(answered.answers),
            "length": float(answered.lengths.mean()),
        }
        told = {"prompts": answered.prompts, "answers": answered.answers, "scores": scores.tolist()}
        self.folder.mkdir(exist_ok=True)
        part = self.folder / "answers.part"
        part.write_text(json.dumps({"iteration": iteration, **values, **told}, indent=1) + "\n")
        part.replace(self.folder / f"{iteration:06d}.json")
        return values

    def read(self, iteration: int) -> list[dict[str, Any]]:
        """All evaluations up to an iteration, the first one first."""
        found = [json.loads(path.read_text()) for path in sorted(self.folder.glob("[0-9]*.json"))]
        return [one for one in found if one["iteration"] <= iteration]


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
    updates = schedule.iterations * schedule.epochs * schedule.rollouts // schedule.minibatch
    optimizer = optim.make(config["optimizer"], tree.split(params, learns)[0], steps=updates)
    state, frozen = states.create(params, optimizer, rng=jax.random.fold_in(key, 1), trainable=learns)
    stops = tuple({i for i in (world.tokenizer.bos_id, world.tokenizer.eos_id) if i is not None})
    writer = Writer(world.model, world.tokenizer, config["prompt_length"], config["new_tokens"], stops)
    step = make_step(ppo_loss(pair, ppo), optimizer)
    trainer = Trainer(pair, ppo, writer, world.reward, world.prompts, step, schedule, seed)
    evaluation = Evaluation(trainer, world.held_out, folder / "answers")

    def show(n: int, facts: Mapping[str, float], rollout: Any) -> None:
        told = "  ".join(f"{name} {facts[name]:.4g}" for name in ("score", "kl", "entropy", "clip_fraction"))
        sample = f"{rollout.prompts[0]}|{rollout.answers[0]}"
        console.print(f"{folder.name} {n}/{schedule.iterations}  {told}  {sample!r:.120}", markup=False, soft_wrap=True)

    stored = json.loads(json.dumps(dict(config)))
    with log.Logger(folder) as logger, Checkpoints(folder / "checkpoints", config=stored) as checkpoints:
        parts: dict[str, Any] = {"checkpoints": checkpoints, "logger": logger, "evaluate": evaluation, "show": show}
        _, ended = run(trainer, state, frozen, **parts)
    history = evaluation.read(ended.iteration)
    over_iterations(folder.name, history, console)
    return {"stopped": ended.stopped, "kl_coefficient": ended.kl_coefficient, "history": history}


def over_iterations(title: str, history: Sequence[Mapping[str, Any]], console: Console, shown: int = 4) -> None:
    """Answers to the first held-out prompts at some evaluations, with their scores."""
    chosen = sorted({0, len(history) // 2, len(history) - 1})
    rows = [
        [history[0]["prompts"][i], str(history[at]["iteration"]), f"{history[at]['scores'][i]:.2f}", answer[:160]]
        for i in range(min(shown, len(history[0]["prompts"])))
        for at in chosen
        for answer in [history[at]["answers"][i]]
    ]
    print_table(title, ["prompt", "iteration", "score", "answer"], rows, console=console)


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the table and draws the figures."""
    compilation.use_cache()
    world = make_world(config, workdir, console)
    grid = [
        Cell(
            {"kl": name, "seed": seed},
            {"kl_settings": kl, **{k: v for k, v in config.items() if k not in ("kl", "seeds", "data")}},
            partial(run_cell, config, world, kl, seed, workdir / f"{name}-{seed}".replace(" ", "_"), console),
        )
        for seed in config["seeds"]
        for name, kl in config["kl"].items()
    ]
    report(sweep(grid, workdir, console), workdir, console)


def report(results: list[dict[str, Any]], workdir: Path, console: Console) -> None:
    """The last evaluation beside the first one (mean and spread over seeds), and curves over iterations."""
    rows = [["before", *(spread([r["history"][0][what] for r in results[:1]]) for what in SHOWN), ""]]
    for name in names(results, "kl"):
        found = picked(results, kl=name)
        last = [r["history"][-1] for r in found]
        ended = f"{statistics.mean(r['kl_coefficient'] for r in found):.3g}"
        rows.append([name, *(spread([one[what] for one in last]) for what in SHOWN), ended])
    seeds = len(names(results, "seed"))
    print_table(f"PPO, {seeds} seeds", ["KL", *SHOWN.values(), "coefficient at last"], rows, console=console)
    for what, label in SHOWN.items():
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


if __name__ == "__main__":
    command.run(work, config="configs/ppo.py", workdir="runs/ppo")
