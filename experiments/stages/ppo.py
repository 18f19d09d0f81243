"""Stage 19: PPO: adapters on the tuned model learn to write what the reward model likes, not far from the model below.

Killed and started again, it goes on from its newest checkpoint, bit for bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.stages import learning, pairs, reward, tokenizer
from experiments.stages.stage import Done, Stage
from experiments.stages.tune import question
from research import weights
from research.core import tree
from research.core.types import Array, Batch, Params
from research.models import Model
from research.recipes.dpo import answer_logprobs
from research.recipes.ppo import PPO, ActorCritic
from research.recipes.ppo_run import Schedule, Trainer, start
from research.recipes.ppo_run import run as iterate
from research.report import Steps
from research.training import log
from research.training.checkpoint import Checkpoints, load_params

LOGGED = ("score", "kl", "entropy", "length")  # of the rollouts; held out also "gold"


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Trains the adapters and a value head; reward, gold score and KL over iterations."""
    settings, source = config["ppo"], inputs["documents"].folder
    pieces = tokenizer.load(inputs["tokenizer"])
    model, scorer = learning.model_of(config, pieces), reward.load(inputs["reward"], config, pieces)
    ppo, schedule = parts(settings)
    key, pair = jax.random.key(settings["seed"]), ActorCritic(model)
    tuned = learning.load_weights(inputs["tune"], model)
    policy = weights.attach(tuned, settings["peft"], jax.random.fold_in(key, 0), config=model.config)
    params = pair.begin(policy)
    learns = pair.learns(params, weights.trainable(policy, settings["peft"]))
    rule = settings["optimizer"]
    step, begin, frozen = start(pair, ppo, schedule, params, learns, rule, jax.random.fold_in(key, 1))
    writer, length = pairs.writer_of(model, pieces, config["pairs"]), config["pairs"]["prompt_length"]
    asked = pairs.questions(source, "train", pieces, length, config["pairs"]["per_task"])
    trainer = Trainer(pair, ppo, writer, scorer, pairs.coded(asked, pieces), step, schedule, settings["seed"])
    held = pairs.questions(source, "test", pieces, length, settings["held_out_per_task"])
    judge = Judge(model, tuned, scorer, {question(r["prompt"]): r["completion"] for r in held})

    def evaluate(params: Params, iteration: int) -> dict[str, float]:
        merged = weights.merge(params["policy"])
        found = judge(merged, writer(merged, pairs.coded(held, pieces), jax.random.key(0)))
        return {name: float(values.mean()) for name, values in found.items()}

    with (
        log.Logger(folder) as logger,
        Checkpoints(folder / "checkpoints", keep=1) as checkpoints,
        Steps("  PPO", schedule.iterations, unit="iterations") as bar,
    ):
        show = lambda n, facts, rollout: bar.advance(1, f"reward {facts['score']:.3f}  KL {facts['kl']:.2f}")  # noqa: E731
        ended, _ = iterate(trainer, begin, frozen, checkpoints=checkpoints, logger=logger, evaluate=evaluate, show=show)
    records = log.read(folder / "metrics.jsonl")
    return {
        "parameters": tree.count(ended.params),
        "recipe": weights.describe(settings["peft"]),
        "steps": int(ended.step),
        "train": {name: learning.curve(records, "train", name) for name in LOGGED},
        "held_out": {name: learning.curve(records, "held_out", name) for name in ("score", "gold", "kl", "length")},
    }


def parts(settings: Mapping[str, Any]) -> tuple[PPO, Schedule]:
    """The method's numbers and its schedule; wrong ones are refused here."""
    return PPO(**settings["method"]), Schedule(**settings["schedule"])


@dataclass(frozen=True)
class Judge:
    """What sampled answers are worth, [B] each: reward, gold score, KL to `base` (log π − log π_base) and length.

    Attributes:
      right: {question: true answer}.
    """

    model: Model
    base: Params
    scorer: reward.Scorer
    right: Mapping[str, str]

    def __call__(self, params: Params, rollout: Any) -> dict[str, np.ndarray]:
        """Of answers that `params` wrote; merged weights, so that they are read by the same program as the base."""
        mine, base = (_logprobs(self.model, one, rollout.batch) for one in (params, self.base))
        return {
            "score": np.asarray(self.scorer(rollout.prompts, rollout.answers)),
            "gold": np.array(pairs.gold([self.right[prompt] for prompt in rollout.prompts], rollout.answers)),
            "kl": np.asarray(mine - base, np.float64),
            "length": rollout.lengths.astype(np.float64),
        }


@partial(jax.jit, static_argnums=0)
def _logprobs(model: Model, params: Params, batch: Batch) -> Array:
    """log π of every answer [B]."""
    return answer_logprobs(model, params, {name: x[:, None] for name, x in batch.items()}).logprobs[:, 0]


def load(done: Done, model: Model) -> Params:
    """The policy of a finished stage, with its adapters."""
    stored, _ = load_params(done.folder / "checkpoints", done.result["steps"])
    return weights.restored(stored["policy"], model.abstract(), done.result["recipe"], config=model.config)


STAGE = Stage(
    name="ppo",
    title="PPO: sampled answers, rewarded by the reward model",
    run=run,
    needs=("documents", "tokenizer", "tune", "reward"),
    reads=("model", "pairs", "ppo"),
    makes=("checkpoints", "metrics.jsonl"),
)
