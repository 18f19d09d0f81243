"""The grid of evenly spaced numbers that integers of a few bits stand for: value = (code - zero) · scale.

Codes are 0 .. 2^bits - 1. A symmetric grid has its zero in the middle and leaves out the lowest code; an asymmetric one
spans from the lowest to the highest number (and always holds 0).
"""

from typing import NamedTuple

import jax.numpy as jnp

from research.core.types import Array


class Grid(NamedTuple):
    """Scale and zero of each group: float32 [..., 1] and [..., 1]."""

    scale: Array
    zero: Array


def fit(x: Array, bits: int, symmetric: bool, dtype: str = "float32") -> Grid:
    """The grid on which the numbers of the last axis lie; its scale can be stored in `dtype`."""
    levels = 2**bits - 1
    high = jnp.maximum(jnp.max(x, axis=-1, keepdims=True), 0)
    low = jnp.minimum(jnp.min(x, axis=-1, keepdims=True), 0)
    span = 2 * jnp.maximum(high, -low) / (levels - 1) if symmetric else (high - low) / levels
    # Codes are computed with the scale as it is stored, so rounding it costs nothing more.
    scale = span.astype(dtype).astype(jnp.float32)
    scale = jnp.where(scale > 0, scale, 1.0)
    middle = jnp.full(scale.shape, float(2 ** (bits - 1)), jnp.float32)
    zero = middle if symmetric else jnp.clip(jnp.round(-low / scale), 0, levels)
    return Grid(scale, zero)


def codes(x: Array, grid: Grid, bits: int, symmetric: bool) -> Array:
    """The nearest code of every number, as float32."""
    return jnp.clip(jnp.round(x / grid.scale) + grid.zero, 1 if symmetric else 0, 2**bits - 1)


def values(code: Array, grid: Grid) -> Array:
    """The numbers that codes stand for."""
    return (code.astype(jnp.float32) - grid.zero) * grid.scale


def rounded(x: Array, bits: int, symmetric: bool, dtype: str = "float32") -> Array:
    """Every number of x moved to the grid of its group, the last axis."""
    grid = fit(x, bits, symmetric, dtype)
    return values(codes(x, grid, bits, symmetric), grid)


def grouped(x: Array, group: int) -> Array:
    """[..., I] as [..., ⌈I / group⌉, group], filled up with the last number of the row, which widens no grid.

    group: 0 takes the whole row.
    """
    size = min(group or x.shape[-1], x.shape[-1])
    short = -x.shape[-1] % size
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, short)], mode="edge") if short else x
    return x.reshape(*x.shape[:-1], -1, size)


def ungrouped(x: Array, features: int) -> Array:
    """The inverse of `grouped`: [..., G, group] -> [..., features]."""
    return x.reshape(*x.shape[:-2], -1)[..., :features]
