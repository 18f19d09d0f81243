"""Scorers of single answers that learn from pairs: what the judge, the toxicity scorer and reward models share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pairs import Pair
from experiments.trial import linear_decay, train
from research.data import load_tokenizer
from research.data.length_batches import length_batches
from research.evaluation.text_scorer import TextScorer, encode, pad
from research.interop import load_pretrained
from research.models import build
from research.recipes.classify import classification_loss
from research.recipes.reward import pairwise_loss

PREFERRED = {"A": 1.0, "tie": 0.5, "B": 0.0}


def batches(pairs: Sequence[Pair], tokenizer: Any, config: Mapping[str, Any], types: int, seed: int) -> list[dict]:
    """All pairs once, those of like length together, both answers of a pair side by side: [P, 2, T]."""
    rows = [
        [encode(tokenizer, (p.question, text), config["length"]) for text in (p.answer_a, p.answer_b)] for p in pairs
    ]
    longest = [max(len(ids) for ids, _ in pair) for pair in rows]
    found = []
    for chosen in length_batches(longest, config["batch_size"], np.random.default_rng(seed)):
        if len(chosen) < config["batch_size"]:
            continue
        batch = pad([row for i in chosen for row in rows[i]], config["length"], types)
        batch = {name: value.reshape(len(chosen), 2, -1) for name, value in batch.items()}
        batch["preferred"] = np.array([PREFERRED[pairs[i].verdict] for i in chosen], np.float32)
        batch["loss_mask"] = np.ones(len(chosen), np.float32)
        found.append(batch)
    return found


def fit(
    config: Mapping[str, Any], pairs: Sequence[Pair], folder: Path, seed: int, *, classes: bool = False
) -> tuple[TextScorer, dict[str, Any]]:
    """A scorer of single answers that learned from pairs by `recipes.reward`, and what that cost.

    classes: by the cross-entropy of "preferred" against "rejected" of each answer alone instead; the score is then the
    logit of that classifier.

    Raises:
      ValueError: fewer pairs than one batch.
    """
    described, params, _ = load_pretrained(folder, head="scalar", key=jax.random.key(seed))
    tokenizer = load_tokenizer(folder)
    steps = [
        batch
        for epoch in range(config["epochs"])
        for batch in batches(pairs, tokenizer, config, described.n_token_types, 1000 * seed + epoch)
    ]
    if not steps:
        raise ValueError(f"{len(pairs)} training pairs make no batch of {config['batch_size']}")
    rule = linear_decay(config["learning_rate"], len(steps), clip=1.0)
    shape = described.replace(head="sequence", n_labels=2) if classes else described
    model = build(shape, policy=config["policy"], unroll=True)
    loss, key = (classification_loss if classes else pairwise_loss)(model), jax.random.fold_in(jax.random.key(seed), 1)
    if classes:
        params, steps = two_classes(params), [single(batch) for batch in steps]
    params, costs = train(loss, params, rule, steps, key, policy=model.policy)
    if classes:
        params = one_logit(params)
    return TextScorer(build(described), params, tokenizer, config["length"], {}), costs


def two_classes(params: Mapping[str, Any]) -> dict[str, Any]:
    """Weights whose head gives the logits (−s/2, s/2) where it gave the score s."""
    return _with_output(params, lambda w: jnp.concatenate([-w / 2, w / 2], axis=-1))


def one_logit(params: Mapping[str, Any]) -> dict[str, Any]:
    """Weights whose head gives the score b − a where it gave the logits (a, b)."""
    return _with_output(params, lambda w: w[..., 1:] - w[..., :1])


def _with_output(params: Mapping[str, Any], change: Any) -> dict[str, Any]:
    return {**params, "head": {**params["head"], "output": jax.tree.map(change, params["head"]["output"])}}


def single(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A batch of pairs as one of answers with `labels`, 1 for the preferred one; ties count for nothing."""
    preferred = batch["preferred"]
    rows = {k: v.reshape(-1, v.shape[-1]) for k, v in batch.items() if v.ndim == 3}
    rows["labels"] = np.stack([preferred > 0.5, preferred < 0.5], axis=1).ravel().astype(np.int32)
    rows["loss_mask"] = np.repeat(batch["loss_mask"] * (preferred != 0.5), 2).astype(np.float32)
    return rows


def decided(pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.verdict != "tie"]
