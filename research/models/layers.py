"""Thin Flax shells: each owns its weights and hands them to a pure function of `research.ops`.

A shell reads the weight that is there, whatever its type, and creates an array only when there is none; so a tree in
which some weights were replaced by other types (LoRA, int8, ...) runs through the same modules.

D model width · I input features · O output features · V vocabulary
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from research.core.types import Array
from research.ops import linear as rules
from research.ops.norms import layer_norm, rms_norm

Initializer = Callable[[Array, tuple[int, ...], Any], Array]


def normal(std: float) -> Initializer:
    """Zero-mean normal weights."""
    return lambda key, shape, dtype: std * jax.random.normal(key, shape, dtype)


def constant(value: float) -> Initializer:
    """The same number everywhere."""
    return lambda key, shape, dtype: jnp.full(shape, value, dtype)


def weight(module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """The module's weight of that name: the one in the tree, of any type, else a new array.

    Raises:
      ValueError: the weight in the tree has another shape.
    """
    if not module.has_variable("params", name):
        return module.param(name, init, shape, dtype)
    value: Any = module.get_variable("params", name)
    if tuple(value.shape) != shape:
        path = "/".join((*module.path, name))
        raise ValueError(f"weight {path!r} has shape {tuple(value.shape)}; the model expects {shape}")
    return value


def dropout_key(module: nn.Module) -> Array | None:
    """A fresh key when the caller passed one, else None: no key, no randomness."""
    return module.make_rng("dropout") if module.has_rng("dropout") else None


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Zeroes a share `rate` of the entries and scales the others by 1/(1 - rate); the identity without a key."""
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


class Linear(nn.Module):
    """y = x W + b for a weight W of any registered type; W is [I, O]."""

    features: int
    use_bias: bool
    dtype: np.dtype
    std: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = weight(self, "kernel", normal(self.std), (x.shape[-1], self.features), self.dtype)
        bias = weight(self, "bias", constant(0.0), (self.features,), self.dtype) if self.use_bias else None
        return rules.linear(kernel, x, bias, dropout_key(self))


class Table(nn.Module):
    """A table of embeddings [V, D] that is read by row and, as an output layer, by product."""

    rows: int
    features: int
    dtype: np.dtype
    std: float

    @nn.compact
    def __call__(self) -> Any:
        return weight(self, "embedding", normal(self.std), (self.rows, self.features), self.dtype)


class Norm(nn.Module):
    """LayerNorm or RMSNorm over the last axis."""

    kind: str
    eps: float
    use_bias: bool
    offset: float
    dtype: np.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1],)
        scale = weight(self, "scale", constant(1.0 - self.offset), shape, self.dtype)
        if self.kind == "rmsnorm":
            return rms_norm(x, scale, eps=self.eps, offset=self.offset)
        bias = weight(self, "bias", constant(0.0), shape, self.dtype) if self.use_bias else None
        return layer_norm(x, scale, bias, eps=self.eps)
