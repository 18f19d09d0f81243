"""A scalar that ranks texts, learned from pairs of which one is preferred.

P pairs · T length
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from research.core.types import Array, Batch, Params
from research.models import Model
from research.objectives import pairwise_log_sigmoid

_PAIRWISE = ("preferred", "loss_mask")


def pairwise_loss(model: Model) -> Callable[[Params, Batch, Array | None], tuple[Array, dict[str, Any]]]:
    """Σ of `pairwise_log_sigmoid` over the pairs, of a model with a scalar head.

    The batch holds the model's inputs as [P, 2, T], both texts of a pair side by side, `preferred` [P] (1: the first
    one, 0: the second, 0.5: a tie) and `loss_mask` [P]. Metric: accuracy, over the pairs that are no tie.

    Raises:
      ValueError: another head.
    """
    if model.config.head != "scalar":
        raise ValueError(f"ranking needs a head 'scalar'; the model has {model.config.head!r}")

    def loss_fn(params: Params, batch: Batch, rng: Array | None) -> tuple[Array, dict[str, Any]]:
        flat = {k: v.reshape(-1, v.shape[-1]) for k, v in batch.items() if k not in _PAIRWISE}
        keys = (None, None) if rng is None else jax.random.split(rng)
        scores = model.classify(params, model.apply(params, flat, rng=keys[0]), flat, rng=keys[1])
        first, second = scores.reshape(-1, 2).T
        preferred, mask = batch["preferred"], batch["loss_mask"].astype(jnp.float32)
        losses = pairwise_log_sigmoid(first, second, preferred=preferred, mask=mask)
        decided = mask * (preferred != 0.5)
        right = jnp.sum(decided * ((first > second) == (preferred > 0.5)))
        metrics = {"accuracy": (right, jnp.sum(decided))}
        return jnp.sum(losses), {"weight": jnp.sum(mask), "metrics": metrics}

    return loss_fn
