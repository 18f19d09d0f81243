"""Products of 8-bit integers, summed in 32 bits, and how rows of activations become such integers.

I input features · O output features
"""

import jax
import jax.numpy as jnp
from jax import lax

from research.core.types import Array

LARGEST = 127


def row_scales(x: Array) -> Array:
    """max |x| / 127 of every row, in float32: x [..., I] -> [..., 1]; a row of zeros has the scale 1."""
    peak = jnp.max(jnp.abs(x), axis=-1, keepdims=True).astype(jnp.float32)
    return jnp.where(peak > 0, peak / LARGEST, 1.0)


def to_int8(x: Array, scale: Array) -> Array:
    """x / scale, rounded to the nearest of -127..127: x [..., I], scale [..., 1] or []."""
    return jnp.clip(jnp.round(x.astype(jnp.float32) / scale), -LARGEST, LARGEST).astype(jnp.int8)


def int8_product(x: Array, w: Array) -> Array:
    """x wᵀ in int32, exact: x [..., I] int8, w [O, I] int8 -> [..., O].

    A single row leaves the fast kernels of a CPU (up to 40 times slower), two rows do not: it is computed twice.
    """
    lonely = x.size == x.shape[-1] and jax.default_backend() == "cpu"
    rows = jnp.broadcast_to(x.reshape(1, -1), (2, x.shape[-1])) if lonely else x
    y = lax.dot_general(rows, w, (((rows.ndim - 1,), (1,)), ((), ())), preferred_element_type=jnp.int32)
    return y[0].reshape(*x.shape[:-1], -1) if lonely else y
