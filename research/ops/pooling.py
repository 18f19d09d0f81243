"""One vector for a sequence, from the states of its tokens.

B batch · T length · D width
"""

import jax.numpy as jnp

from research.core.names import meant
from research.core.types import Array

MODES = ("mean", "cls", "max", "lasttoken")


def pool(states: Array, segments: Array, how: str = "mean") -> Array:
    """Token states [B, T, D] as one float32 vector [B, D] a row, over the tokens whose segment [B, T] is not 0.

    how: their mean, their largest entry in each dimension ("max"), the first ("cls") or the last ("lasttoken") of
    them, as `sentence-transformers` names them. A row without tokens becomes zeros.

    Raises:
      ValueError: another way.
    """
    if how not in MODES:
        raise ValueError(f"unknown pooling {how!r}{meant(how, MODES)}; have {list(MODES)}")
    real, states = segments > 0, states.astype(jnp.float32)
    if how == "mean":
        total = jnp.sum(jnp.where(real[..., None], states, 0), axis=1)
        return total / jnp.maximum(jnp.sum(real, axis=1, keepdims=True), 1)
    if how == "max":
        found = jnp.max(jnp.where(real[..., None], states, -jnp.inf), axis=1)
    else:
        last = real.shape[1] - 1 - jnp.argmax(real[:, ::-1], axis=1)
        place = jnp.argmax(real, axis=1) if how == "cls" else last
        found = jnp.take_along_axis(states, place[:, None, None], axis=1)[:, 0]
    return jnp.where(jnp.any(real, axis=1, keepdims=True), found, 0)
