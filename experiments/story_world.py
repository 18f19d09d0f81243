"""What the experiments that tune a story writer share: its prompts, the reward it learns from, and how it is judged."""

import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments.cells import Cell, data_folder, sweep
from experiments.loading import load
from experiments.sentiment import Sentiment
from research.core import tree
from research.decoding import Sampling, generate
from research.models import Model, build
from research.recipes.rollouts import Reward, Writer, scored
from research.report import print_table
from research.training.step import Step

SHOWN = {
    "score": "score",
    "gold": "gold",
    "kl": "KL, nats",
    "nll": "NLL, untouched model",
    "distinct": "distinct 2-grams",
}
WORLD = ("policy", "data", "reward", "gold", "prompts", "prompt_length", "new_tokens", "held_out", "sentiment")


@dataclass(frozen=True)
class World:
    """What all runs share: the policy as it was, prompts to learn from and held out, the reward and a better judge."""

    model: Model
    base: Any
    writer: Writer
    prompts: list[list[int]]
    held_out: list[list[int]]
    reward: Reward
    gold: Reward | None


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


def make_reward(name: str, config: Mapping[str, Any], root: Path, workdir: Path, console: Console) -> Reward:
    """ "sst2 PART": an encoder tuned on a part (config's `sentiment.parts`); "count TEXT": how often the text stands in
    the answer; "module:function": any other."""
    if name.startswith("sst2 "):
        return Sentiment.make(name.removeprefix("sst2 "), config["sentiment"], root, workdir, console)
    if name.startswith("count "):
        wanted = name.removeprefix("count ")
        return lambda prompts, answers: [float(answer.count(wanted)) for answer in answers]
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        have = "'sst2 PART', 'count TEXT' nor 'module:function'"
        raise ValueError(f"reward {name!r} is neither {have}: {error}") from None


def make_world(config: Mapping[str, Any], workdir: Path, console: Console) -> World:
    """Reads the policy, lets it write the prompts, and makes the rewards."""
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
    reward, gold = (
        make_reward(name, config, root, workdir, console) if name else None
        for name in (config["reward"], config["gold"])
    )
    if reward is None:
        raise ValueError("there is nothing to learn without a reward")
    model = build(loaded.model.config, unroll=True)
    stops = tuple({i for i in (loaded.tokenizer.bos_id, loaded.tokenizer.eos_id) if i is not None})
    writer = Writer(model, loaded.tokenizer, config["prompt_length"], config["new_tokens"], stops)
    return World(model, tree.stack(loaded.params), writer, fitting[held:], fitting[:held], reward, gold)


def distinct(texts: Sequence[str], n: int = 2) -> float:
    """Different n-grams of words over all of them: *A Diversity-Promoting Objective Function*, Li et al., 2016."""
    grams = [tuple(words[i : i + n]) for words in map(str.split, texts) for i in range(len(words) - n + 1)]
    return len(set(grams)) / max(len(grams), 1)


Said = Callable[[Any, Mapping[str, np.ndarray]], Sequence[np.ndarray]]
"""(weights, batch of `rollouts.rows`) -> log π and log π_ref [B, T]."""


class Evaluation:
    """Answers to the held-out prompts with the same noise at every evaluation, kept in `folder`."""

    def __init__(self, world: World, said: Said, folder: Path, temperature: float = 1.0):
        self._world, self._said, self._folder, self._temperature = world, said, folder, temperature
        self._since = time.process_time()

    def __call__(self, params: Mapping[str, Any], iteration: int) -> dict[str, float]:
        """Means over the prompts for the policy `params["policy"]`; the file also has the CPU seconds of training."""
        spent = time.process_time() - self._since + sum(one["cpu_seconds"] for one in self.read(iteration - 1)[-1:])
        world = self._world
        answered = world.writer(params["policy"], world.held_out, jax.random.key(0), temperature=self._temperature)
        logprobs, reference = self._said(params, answered.batch)
        on = answered.batch["loss_mask"] > 0
        judged = {"scores": scored(world.reward, answered).tolist()}
        if world.gold is not None:
            judged["golds"] = scored(world.gold, answered).tolist()
        values = {
            **{name: float(np.mean(judged[f"{name}s"])) for name in ("score", "gold") if f"{name}s" in judged},
            "kl": float(((logprobs - reference) * on).sum(1).mean()),
            "nll": float(-reference[on].mean()),
            "distinct": distinct(answered.answers),
            "length": float(answered.lengths.mean()),
        }
        told = {"cpu_seconds": spent, "prompts": answered.prompts, "answers": answered.answers, **judged}
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / "answers.part"
        part.write_text(json.dumps({"iteration": iteration, **values, **told}, indent=1) + "\n")
        part.replace(self._folder / f"{iteration:06d}.json")
        self._since = time.process_time()
        return values

    def read(self, iteration: int) -> list[dict[str, Any]]:
        """All evaluations up to an iteration, the first one first."""
        found = [json.loads(path.read_text()) for path in sorted(self._folder.glob("[0-9]*.json"))]
        return [one for one in found if one["iteration"] <= iteration]


def memory(step: Step, state: Any, frozen: Any, batch: Mapping[str, np.ndarray]) -> int:
    """Bytes of the arguments and temporaries of the compiled step; 0 where the compiler does not tell."""
    used = step.lower(state, frozen, batch).compile().memory_analysis()
    return int(used.temp_size_in_bytes + used.argument_size_in_bytes) if used else 0


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
