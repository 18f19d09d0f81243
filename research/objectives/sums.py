"""Losses as sums over what counts, so that rows, micro-batches and devices can be added up in any order.

Every objective gives (Σ losses, {"weight": Σ mask, "metrics": {name: (sum, weight)}}), which is what
`research.training.step` asks of a loss: it divides once, at the end.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from research.core.types import Array

Loss: TypeAlias = tuple[Array, dict[str, Any]]
"""(sum, {"weight": scalar, "metrics": {name: (sum, weight)}})"""


def kept(x: Array | float, mask: Array | None, otherwise: float = 0.0) -> Array:
    """`x` in float32, with a harmless number where the mask is 0.

    Selected before anything is computed from it: whatever stands there, NaN too, adds exactly nothing to a gradient.
    """
    x = jnp.asarray(x, jnp.float32)
    return x if mask is None else jnp.where(mask > 0, x, otherwise)


def counted(x: Array, mask: Array | None) -> tuple[Array, Array]:
    """(Σ mask · x, Σ mask), scalars; without a mask all count."""
    weights = jnp.ones(x.shape, jnp.float32) if mask is None else mask.astype(jnp.float32)
    return jnp.sum(jnp.where(weights > 0, x * weights, 0.0)), jnp.sum(weights)


def summed(losses: Array, mask: Array | None, metrics: Mapping[str, tuple[Array, Array]]) -> Loss:
    """The sum of what counts, its weight, and metrics through which nothing is differentiated."""
    total, weight = counted(losses, mask)
    return total, {"weight": weight, "metrics": jax.lax.stop_gradient(dict(metrics))}
