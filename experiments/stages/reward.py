"""Stage 18: a reward model, the tuned model with a scalar on top, learns from the pairs which answer is better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.stages import learning, pairs, tokenizer
from experiments.stages.stage import Done, Stage, read_lines
from research.core.types import Params
from research.data.packing import pad_batch
from research.evaluation import bootstrap
from research.models import Model, build
from research.recipes.classify import scores
from research.recipes.reward import pairwise_loss
from research.training import log


@dataclass(frozen=True)
class Scorer:
    """Texts of questions and of answers -> [n] rewards, of mean 0 and variance 1 over the answers of held-out pairs.

    Attributes:
      length: tokens of a question with its answer; of longer ones the answer is cut. rows: scored at a time.
    """

    model: Model
    params: Params
    pieces: Any
    length: int
    mean: float = 0.0
    std: float = 1.0
    rows: int = 32

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        ids = [
            [*self.pieces.encode(prompt, bos=True), *self.pieces.encode(answer, eos=True)][: self.length]
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        found = []
        for first in range(0, len(ids), self.rows):
            some = ids[first : first + self.rows]
            # Full batches only, so that there is one program.
            batch = pad_batch(some + [some[-1]] * (self.rows - len(some)), self.length)
            found.append(np.asarray(scores(self.model, self.params, batch))[: len(some)])
        return (np.concatenate(found) - self.mean) / self.std


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Trains on pairs of training functions; accuracy on pairs of held-out ones, beside the longer answer's."""
    pieces = tokenizer.load(inputs["tokenizer"])
    policy, model = learning.model_of(config, pieces), model_of(config, pieces)
    length = pairs.row_length(config["pairs"])
    rows = {side: pairs.rows(inputs["pairs"], side, pieces, length) for side in ("train", "test")}
    head = jax.tree.map(lambda w: jnp.zeros(w.shape, w.dtype), model.abstract()["head"])
    base = {**learning.load_weights(inputs["tune"], policy), "head": head}
    trained = learning.train(
        model,
        config["reward"],
        rows["train"],
        rows["test"],
        folder,
        params=base,
        loss_fn=pairwise_loss(model),
        title="  reward model",
    )
    scorer = Scorer(model, learning.load_weights(Done(folder, trained, 0.0, ""), model), pieces, length)
    held = read_lines(inputs["pairs"].folder / "test.jsonl")
    prompts = [pair["prompt"] for pair in held]
    chosen, rejected = (scorer(prompts, [pair[name] for pair in held]) for name in ("chosen", "rejected"))
    every = np.concatenate([chosen, rejected])
    records = log.read(folder / "metrics.jsonl")
    return trained | {
        "mean": float(every.mean()),
        "std": float(every.std()),
        "accuracy": accuracies(held, chosen, rejected),
        "curve": learning.curve(records, "held_out", "accuracy"),
    }


def accuracies(
    held: Sequence[Mapping[str, Any]], chosen: np.ndarray, rejected: np.ndarray
) -> dict[str, dict[str, list[float]]]:
    """{kind of pairs: {method: interval}}: the better answer has the higher score, or is the longer or shorter text."""
    longer = np.array([len(pair["chosen"]) - len(pair["rejected"]) for pair in held])
    # Equal scores or lengths decide nothing: half right.
    methods = {"reward model": chosen - rejected, "longer answer": longer, "shorter answer": -longer}
    sampled = np.array([pair["sampled"] for pair in held])
    kinds = {"all": sampled | True, "with the true answer": ~sampled, "of two samples": sampled}
    return {
        f"{kind} ({int(on.sum())} pairs)": {
            name: list(bootstrap((np.sign(margin[on]) + 1) / 2)) for name, margin in methods.items()
        }
        for kind, on in kinds.items()
        if on.any()
    }


def model_of(config: Mapping[str, Any], pieces: Any) -> Model:
    """The model of the config with a scalar on top, read at the last token."""
    policy = learning.model_of(config, pieces)
    described = policy.config.replace(head="scalar", pooling="last", head_dense=False)
    return build(described, policy=policy.policy, unroll=policy.unroll)


def load(done: Done, config: Mapping[str, Any], pieces: Any) -> Scorer:
    """The scorer of a finished stage."""
    model = model_of(config, pieces)
    facts = {name: done.result[name] for name in ("mean", "std")}
    return Scorer(model, learning.load_weights(done, model), pieces, pairs.row_length(config["pairs"]), **facts)


STAGE = Stage(
    name="reward",
    title="Reward model: a scalar on the tuned model, from pairs",
    run=run,
    needs=("tokenizer", "tune", "pairs"),
    reads=("model", "pairs", "reward"),
    makes=("checkpoints", "metrics.jsonl"),
)
