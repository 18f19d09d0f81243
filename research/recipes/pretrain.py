"""Pre-training, and every other loss that predicts tokens: causal, prefix, masked, span corruption, denoising.

One loss serves them all, because what differs between them (which tokens are given, which are asked for, who sees
whom) is in the batch: `tokens`, `targets`, `loss_mask`, `horizon`, `inputs`.

B batch · T length · S source length · V vocabulary
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from research.core.types import Array, Batch, Params
from research.models import Model
from research.ops.cross_entropy import CHUNK, cross_entropy


def language_model_loss(
    model: Model, *, chunk: int = CHUNK, parts: Sequence[str] = ()
) -> Callable[[Params, Batch, Array | None], tuple[Array, dict[str, Any]]]:
    """-Σ mask · log p(target | batch), with its weight Σ mask and the accuracy of the argmax.

    The batch holds `targets` [B, T] (already shifted: position t predicts targets[t]) and `loss_mask` [B, T] beside
    the model's inputs. With an rng, dropout is on. `chunk` positions have their logits in memory at a time. Where the
    batch says of which part of a mixture each row is (`part` [B], an index into `parts`), "loss/<part>" are metrics.
    """

    def loss_fn(params: Params, batch: Batch, rng: Array | None) -> tuple[Array, dict[str, Any]]:
        output = model.apply(params, batch, rng=rng)
        features, weight, bias, cap = model.projection(params, output.hidden)
        sums = cross_entropy(features, weight, batch["targets"], batch["loss_mask"], bias=bias, cap=cap, chunk=chunk)
        metrics = {"accuracy": (sums.correct, sums.weight)}
        if parts and "part" in batch:
            weights = jnp.sum(batch["loss_mask"].astype(jnp.float32), axis=1)
            for i, name in enumerate(parts):
                mine = batch["part"] == i
                metrics[f"loss/{name}"] = (jnp.sum(sums.rows, where=mine), jnp.sum(weights, where=mine))
        return sums.nll, {"weight": sums.weight, "metrics": metrics}

    return loss_fn
