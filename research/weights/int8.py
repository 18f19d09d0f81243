"""Eight bits a weight: with activations as they are, or in eight bits too.

I input features · O output features
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from research.core.types import Array
from research.ops.dot import add_bias, dot_transposed
from research.ops.int8 import LARGEST, int8_product, row_scales, to_int8
from research.ops.linear import linear, unembed
from research.weights import grid
from research.weights.calibrate import Statistic, clipping
from research.weights.packed import Packed
from research.weights.quantizer import Quantizer

_SHIFT = 128  # codes 0..255 are stored as -128..127


@struct.dataclass
class Int8(Packed):
    """W = (q - zero) · scale per output feature, multiplied with activations in their own type.

    Attributes:
      q: int8 [..., O, I]. scale: float32 [..., O]. zero: int8 [..., O], or None where the grid is symmetric.
    """

    q: Array
    scale: Array
    zero: Array | None = None
    table: bool = struct.field(pytree_node=False, default=False)

    def rows(self) -> Array:
        """(q - zero) · scale, float32 [..., O, I]."""
        return _values(self.q, self.scale, self.zero)

    def take(self, ids: Array) -> Array:
        """Rows of a table."""
        zero = None if self.zero is None else self.zero[ids]
        return _values(self.q[ids], self.scale[ids], zero)

    def rows_shape(self) -> tuple[int, ...]:
        """[..., O, I]."""
        return tuple(self.q.shape)

    def row_layouts(self, spec: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
        """Scales and zeros follow the rows."""
        return {"q": spec, "scale": spec[:-1], "zero": spec[:-1]}


@struct.dataclass
class W8A8(Int8):
    """The same weight in a product of integers: activations are rounded to int8 before it.

    See *LLM.int8()*, https://arxiv.org/abs/2208.07339 (vector-wise scales), and *SmoothQuant*,
    https://arxiv.org/abs/2211.10438 (static scales).

    Attributes:
      input_scale: float32 [...], one scale for all activations; None: max |x| / 127 of each token.
    """

    input_scale: Array | None = None


def _values(q: Array, scale: Array, zero: Array | None) -> Array:
    wide = q.astype(jnp.float32)
    return (wide if zero is None else wide - zero[..., None].astype(jnp.float32)) * scale[..., None]


@jax.checkpoint
def _scaled_product(w: Int8, x: Array) -> Array:
    # The scale belongs to the output, so it is multiplied where it is short: once per output, not once per weight.
    y = dot_transposed(x, w.q.astype(x.dtype))
    if w.zero is not None:
        y = y - jnp.sum(x.astype(jnp.float32), -1, keepdims=True) * w.zero.astype(jnp.float32)
    return y * w.scale


@jax.custom_vjp
def _integer_product(w: W8A8, x: Array) -> Array:
    scale = row_scales(x) if w.input_scale is None else w.input_scale
    rounded = to_int8(x, scale)
    y = int8_product(rounded, w.q)
    if w.zero is not None:
        y = y - jnp.sum(rounded, -1, keepdims=True, dtype=jnp.int32) * w.zero.astype(jnp.int32)
    return y.astype(jnp.float32) * (scale * w.scale)


def _integer_forward(w: W8A8, x: Array) -> tuple[Array, tuple[W8A8, Array]]:
    return _integer_product(w, x), (w, jnp.zeros((0,), x.dtype))


def _integer_backward(saved: tuple[W8A8, Array], g: Array) -> tuple[None, Array]:
    # Rounding counts as the identity in the gradient (straight-through), as if activations had been left alone.
    w, like = saved
    g = g.astype(like.dtype)
    return None, dot_transposed(g, jnp.swapaxes(w.rows(), -1, -2).astype(g.dtype)).astype(g.dtype)


_integer_product.defvjp(_integer_forward, _integer_backward)


@linear.register
def _(w: Int8, x: Array, bias: Array | None = None, rng: Array | None = None) -> Array:
    del rng
    y = (_integer_product if isinstance(w, W8A8) else _scaled_product)(w, x).astype(x.dtype)
    return y if bias is None else add_bias(y, bias)


@unembed.register
def _(w: Int8, h: Array) -> Array:
    return (_integer_product if isinstance(w, W8A8) else _scaled_product)(w, h)


@dataclass(frozen=True)
class Int8Weights(Quantizer):
    """Weights in int8, one scale per output feature; activations as they are.

    Attributes:
      symmetric: the grid has 0 in its middle; else it spans from the lowest to the highest weight of the row.
    """

    symmetric: bool = True

    def pack(self, path: str, rows: Array, table: bool, statistic: Statistic | None) -> Packed:
        """Rounded to the nearest."""
        del path, statistic
        return Int8(*to_rows(rows, self.symmetric), table=table)


@dataclass(frozen=True)
class Int8Dynamic(Int8Weights):
    """Weights and activations in int8; each token's scale is its own largest activation."""

    def pack(self, path: str, rows: Array, table: bool, statistic: Statistic | None) -> Packed:
        """Rounded to the nearest."""
        del path, statistic
        return W8A8(*to_rows(rows, self.symmetric), table=table)


@dataclass(frozen=True)
class Int8Static(Int8Weights):
    """Weights and activations in int8, one scale for all activations of a weight, from calibration text.

    Attributes:
      range: what the scale is chosen by, "absmax", "percentile" or "mse". percentile: of all |x|.
    """

    CALIBRATED: ClassVar[bool] = True
    range: str = "absmax"
    percentile: float = 99.99

    def pack(self, path: str, rows: Array, table: bool, statistic: Statistic | None) -> Packed:
        """Rounded to the nearest."""
        del path
        assert statistic is not None  # `attach` found it or refused
        if not 0 < self.percentile <= 100:
            raise ValueError(f"percentile lies in 0..100; given {self.percentile}")
        largest = clipping(statistic, self.range, percentile=self.percentile, levels=LARGEST)
        scale = jnp.where(largest > 0, largest / LARGEST, 1.0)
        return W8A8(*to_rows(rows, self.symmetric), table=table, input_scale=scale)


def to_rows(rows: Array, symmetric: bool) -> tuple[Array, Array, Array | None]:
    """(q, scale, zero) of rows [..., O, I], each rounded to the nearest number of its own grid."""
    fitted = grid.fit(rows, 8, symmetric)
    q = (grid.codes(rows, fitted, 8, symmetric) - _SHIFT).astype(jnp.int8)
    zero = None if symmetric else (fitted.zero[..., 0] - _SHIFT).astype(jnp.int8)
    return q, fitted.scale[..., 0], zero
