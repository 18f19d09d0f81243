"""Normalisation over the last axis, computed in float32 whatever the type of the input."""

import jax
import jax.numpy as jnp

from research.core.types import Array


def layer_norm(x: Array, scale: Array | None, bias: Array | None = None, *, eps: float = 1e-5) -> Array:
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


def rms_norm(x: Array, scale: Array | None, *, eps: float = 1e-6, offset: float = 0.0) -> Array:
    """x / √(mean(x²) + eps) · (offset + scale) over the last axis; Gemma stores its scale around zero (offset 1).

    See *Root Mean Square Layer Normalization*, Zhang, Sennrich, https://arxiv.org/abs/1910.07467.
    """
    wide = x.astype(jnp.float32)
    y = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    if scale is not None:
        y = y * (offset + scale.astype(jnp.float32))
    return y.astype(x.dtype)
