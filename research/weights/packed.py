"""What all quantized weights share: rows of integers that stand for rows of numbers.

Every output feature is one row, whatever the weight: a kernel [I, O] is stored as [O, I], a table [V, D] as it is. So
one product serves linear layers and output layers, and all arrays stay two-dimensional within a layer, which lets a
mesh cut them like the weight they stand for.

I input features · O output features (rows)
"""

from abc import ABC, abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core.types import Array
from research.ops.dot import add_bias, dot_transposed
from research.ops.linear import dense, embed, linear, unembed


class Packed(ABC):
    """A weight stored in few bits; a subclass is a `flax.struct` dataclass with a static `table` and its own arrays.

    Nothing of it learns: integers have no gradient. What learns stands beside it (LoRA) or before it (QAT).
    """

    table: bool

    @abstractmethod
    def rows(self) -> Array:
        """The numbers that the integers stand for, float32 [..., O, I]."""

    @abstractmethod
    def take(self, ids: Array) -> Array:
        """Rows of a table: ids [...] -> float32 [..., I]."""

    @abstractmethod
    def rows_shape(self) -> tuple[int, ...]:
        """[..., O, I]."""

    @abstractmethod
    def row_layouts(self, spec: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
        """Mesh axes of the arrays, for those of [..., O, I]; what is not named is kept whole."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight this stands for, with the layer axis where there is one."""
        *lead, rows, columns = self.rows_shape()
        return (*lead, rows, columns) if self.table else (*lead, columns, rows)

    @property
    def dtype(self) -> np.dtype:
        """The type of the numbers it stands for."""
        return np.dtype(np.float32)

    def layouts(self, spec: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
        """Mesh axes of the arrays, for those of the weight."""
        *lead, first, second = spec
        return self.row_layouts((*lead, first, second) if self.table else (*lead, second, first))


def is_packed(node: Any) -> bool:
    """Whether a node of a tree is a quantized weight."""
    return isinstance(node, Packed)


def as_rows(weight: Array, table: bool) -> Array:
    """[..., O, I] of a kernel [..., I, O] or a table, in float32."""
    return (weight if table else jnp.swapaxes(weight, -1, -2)).astype(jnp.float32)


@jax.checkpoint
def _product(w: Packed, x: Array) -> Array:
    # Recomputed in the backward pass, so that what is kept for it are the integers and not the numbers.
    return dot_transposed(x, w.rows().astype(x.dtype))


@linear.register
def _(w: Packed, x: Array, bias: Array | None = None, rng: Array | None = None) -> Array:
    del rng
    y = _product(w, x).astype(x.dtype)
    return y if bias is None else add_bias(y, bias)


@unembed.register
def _(w: Packed, h: Array) -> Array:
    return _product(w, h)


@embed.register
def _(w: Packed, ids: Array) -> Array:
    return w.take(jnp.clip(ids, 0, w.rows_shape()[-2] - 1))


@dense.register
def _(w: Packed) -> Array:
    rows = w.rows()
    return rows if w.table else jnp.swapaxes(rows, -1, -2)
