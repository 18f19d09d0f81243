"""Normalisation over the last axis, computed in float32 whatever the type of the input."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from research.core.types import Array


def layer_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, " D"] | None,
    bias: Float[Array, " D"] | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Array, "... D"]:
    """(x - mean) / √(var + eps) · scale + bias over the last axis: x [..., D] -> [..., D] in the type of x.

    See *Layer Normalization*, Ba, Kiros, Hinton, https://arxiv.org/abs/1607.06450.
    """
    wide = x.astype(jnp.float32)
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    y = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    if scale is not None:
        y = y * scale.astype(jnp.float32)
    if bias is not None:
        y = y + bias.astype(jnp.float32)
    return y.astype(x.dtype)


def rms_norm(
    x: Float[Array, "... D"], scale: Float[Array, " D"] | None, *, eps: float = 1e-6, offset: float = 0.0
) -> Float[Array, "... D"]:
    """x / √(mean(x²) + eps) · (offset + scale) over the last axis; Gemma stores its scale around zero (offset 1).

    See *Root Mean Square Layer Normalization*, Zhang, Sennrich, https://arxiv.org/abs/1910.07467.
    """
    wide = x.astype(jnp.float32)
    y = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    if scale is not None:
        y = y * (offset + scale.astype(jnp.float32))
    return y.astype(x.dtype)
