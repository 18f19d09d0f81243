"""A scalar that ranks texts, learned from pairs of which one is preferred.

It is read at the config's `pooling`: the first token of an encoder, the last real one of a decoder, the last token that
the decoder of an encoder-decoder reads.

P pairs · T length
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from research.core.types import Array, Batch, Params
from research.models import Model
from research.objectives import Loss, bradley_terry

_OF_PAIRS = ("preferred", "margin", "reference", "loss_mask", "targets", "part")


def pairwise_loss(model: Model, *, center: float = 0.0) -> Callable[[Params, Batch, Array | None], Loss]:
    """Σ over pairs of `objectives.bradley_terry`, of a model with a scalar head.

    The batch holds the model's inputs as [P, 2, T], both texts of a pair side by side, and `loss_mask`: [P], or
    [P, 2, T] as in `data.preference_rows`, where a pair counts if both of its answers have a token. It may hold
    `preferred` [P] (1: the first one, 0: the second, 0.5: a tie; without it all 1) and `margin` [P].

    center: keeps the mean score at 0. Metrics: accuracy and margin, over the pairs that are no tie.

    Raises:
      ValueError: another head, a `center` below 0, or an encoder-decoder that is not read at its last token.
    """
    if model.config.head != "scalar":
        raise ValueError(f"ranking needs a head 'scalar'; the model has {model.config.head!r}")
    if model.config.kind == "encoder_decoder" and model.config.pooling != "last":
        raise ValueError(
            "an encoder-decoder reads the prompt with its encoder and the answer with its decoder, whose last token "
            f"gives the score: set pooling='last'; the model has {model.config.pooling!r}"
        )
    if not center >= 0:
        raise ValueError(f"center must be 0 or above, given {center}")

    def loss_fn(params: Params, batch: Batch, rng: Array | None) -> Loss:
        flat = {k: v.reshape(-1, v.shape[-1]) for k, v in batch.items() if k not in _OF_PAIRS}
        keys = (None, None) if rng is None else jax.random.split(rng)
        scores = model.classify(params, model.apply(params, flat, rng=keys[0]), flat, rng=keys[1])
        first, second = scores.reshape(-1, 2).T
        mask = batch["loss_mask"]
        if mask.ndim == 3:
            mask = jnp.all(jnp.any(mask > 0, axis=-1), axis=-1)
        more = {name: batch[name] for name in ("preferred", "margin") if name in batch}
        return bradley_terry(first, second, center=center, mask=mask, **more)

    return loss_fn
