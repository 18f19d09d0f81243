"""Four bits a weight on a grid that is not even: NF4 and FP4, with scales that are quantized themselves.

Each row is cut into blocks; a block's numbers, divided by its largest, are moved to the nearest of 16. Where a row is a
multiple of the block, codes and values are those of `bitsandbytes`, which blocks the flattened matrix.

See *QLoRA: Efficient Finetuning of Quantized LLMs*, https://arxiv.org/abs/2305.14314, and *8-Bit Approximations for
Parallelism in Deep Learning*, https://arxiv.org/abs/1511.04561 (the map of the scales).

I input features · O output features · K blocks in a row
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import struct

from research.core.types import Array
from research.weights import packing
from research.weights.calibrate import Statistic
from research.weights.grid import grouped
from research.weights.packed import Packed
from research.weights.quantizer import Quantizer, check_block

# Quantiles of the normal distribution, scaled to -1..1 and with an exact 0.
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
# A sign, two bits of exponent and one of fraction, scaled to 1; the numbers below zero have the codes from 8 on.
_FP4 = (0.0, 0.0625 / 12, 8 / 12, 1.0, 4 / 12, 6 / 12, 2 / 12, 3 / 12)

OUTER_BLOCK = 256  # scales that share a scale


@struct.dataclass
class NF4(Packed):
    """value = codebook[code] · absmax of the code's block.

    Attributes:
      codes: uint8 [..., O, ⌈I/2⌉], two a byte.
      absmax: float32 [..., O, K], or, doubly quantized, codes uint8 [..., O, K].
      outer: float32 [..., ⌈O·K/256⌉], the scale of each 256 of them, or None. offset: float32 [...], their mean.
      block: numbers that share an absmax. features: I.
    """

    CODEBOOK: ClassVar[tuple[float, ...]] = _NF4
    codes: Array
    absmax: Array
    outer: Array | None = None
    offset: Array | None = None
    block: int = struct.field(pytree_node=False, default=64)
    features: int = struct.field(pytree_node=False, default=0)
    table: bool = struct.field(pytree_node=False, default=False)

    def scales(self) -> Array:
        """The absmax of every block, float32 [..., O, K]."""
        if self.outer is None or self.offset is None:
            return self.absmax
        rows, blocks = self.absmax.shape[-2:]
        outer = jnp.repeat(self.outer, OUTER_BLOCK, axis=-1)[..., : rows * blocks]
        inner = jnp.asarray(dynamic_map())[self.absmax]
        return inner * outer.reshape(self.absmax.shape) + self.offset[..., None, None]

    def rows(self) -> Array:
        """The values, float32 [..., O, I]."""
        return self._values(self.codes, self.scales())

    def take(self, ids: Array) -> Array:
        """Rows of a table."""
        if self.outer is None or self.offset is None:
            return self._values(self.codes[ids], self.absmax[ids])
        blocks = self.absmax.shape[-1]
        flat = ids[..., None] * blocks + jnp.arange(blocks)
        inner = jnp.asarray(dynamic_map())[self.absmax[ids]]
        return self._values(self.codes[ids], inner * self.outer[flat // OUTER_BLOCK] + self.offset)

    def _values(self, codes: Array, scales: Array) -> Array:
        unit = jnp.asarray(self.CODEBOOK, jnp.float32)[packing.unpack(codes, 4, self.features)]
        return unit * jnp.repeat(scales, self.block, axis=-1)[..., : self.features]

    def rows_shape(self) -> tuple[int, ...]:
        """[..., O, I]."""
        return (*self.codes.shape[:-1], self.features)

    def row_layouts(self, spec: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
        """Codes and scales are cut like the numbers; the scales of scales are kept whole."""
        return {"codes": spec, "absmax": spec}


@struct.dataclass
class FP4(NF4):
    """The same with the numbers of a 4-bit float."""

    CODEBOOK: ClassVar[tuple[float, ...]] = (*_FP4, *(-x for x in _FP4))


@cache
def dynamic_map() -> np.ndarray:
    """The 256 numbers of the 8-bit dynamic map, ascending: a decimal exponent in unary, the rest is fraction."""
    first, found = np.float32(0.1), [0.0, 1.0]
    for exponent in range(7):
        n = 2**exponent
        step, at = float((1 - first) / np.float32(n)), np.arange(n + 1)
        # From both ends, as torch spaces them: the map is then that of bitsandbytes to the last bit.
        edges = np.where(at < (n + 1) // 2, first + step * at, 1 - step * (n - at)).astype(np.float32)
        middles = (edges[:-1] + edges[1:]) / np.float32(2) * np.float32(10.0 ** (exponent - 6))
        found += [*middles, *(-middles)]
    return np.sort(np.array(found)).astype(np.float32)


def nearest(x: Array, numbers: tuple[float, ...] | np.ndarray) -> Array:
    """The index of the nearest of the numbers for every x, as uint8; halfway it is the lower number's."""
    table = np.asarray(numbers, np.float32)
    order = np.argsort(table)
    bounds = (table[order[:-1]] + table[order[1:]]) / np.float32(2)
    at = jnp.searchsorted(jnp.asarray(bounds), x, side="left", method="compare_all")
    return jnp.asarray(order.astype(np.uint8))[at]


def _unit(x: Array) -> tuple[Array, Array]:
    """x over the largest magnitude of its last axis, and that magnitude."""
    absmax = jnp.max(jnp.abs(x), axis=-1)
    factor = jnp.where(absmax > 0, 1 / absmax, 0.0)  # multiplied, not divided by: so does bitsandbytes, to the last bit
    return jnp.clip(x * factor[..., None], -1, 1), absmax


def _twice(absmax: Array) -> tuple[Array, Array, Array]:
    """(codes, outer, offset) of scales [..., O, K]: their distance from the mean, in blocks of 256."""
    offset = jnp.mean(absmax, axis=(-2, -1))
    flat = (absmax - offset[..., None, None]).reshape(*absmax.shape[:-2], -1)
    unit, outer = _unit(_blocks(flat, OUTER_BLOCK))
    codes = nearest(unit, dynamic_map()).reshape(*flat.shape[:-1], -1)[..., : flat.shape[-1]]
    return codes.reshape(absmax.shape), outer, offset


def _blocks(x: Array, size: int) -> Array:
    """[..., n] as [..., ⌈n/size⌉, size], filled up with zeros."""
    short = -x.shape[-1] % size
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, short)]).reshape(*x.shape[:-1], -1, size)


@dataclass(frozen=True)
class Nf4Weights(Quantizer):
    """Four bits on the quantiles of a normal distribution.

    Attributes:
      block: numbers that share a scale. double: scales are stored in eight bits; 4.127 instead of 4.5 bits a weight.
    """

    LEAF: ClassVar[type[NF4]] = NF4
    block: int = 64
    double: bool = True

    def pack(self, path: str, rows: Array, table: bool, statistic: Statistic | None) -> Packed:
        """Rounded to the nearest."""
        del path, statistic
        check_block(self.block, "the block of a 4-bit format")
        features = rows.shape[-1]
        unit, absmax = _unit(grouped(rows, self.block))
        codes = nearest(unit, self.LEAF.CODEBOOK)
        codes = packing.pack(codes.reshape(*codes.shape[:-2], -1)[..., :features], 4)
        inner, outer, offset = _twice(absmax) if self.double else (absmax, None, None)
        block = min(self.block, features)
        return self.LEAF(codes, inner, outer, offset, block=block, features=features, table=table)


@dataclass(frozen=True)
class Fp4Weights(Nf4Weights):
    """Four bits as a small float."""

    LEAF: ClassVar[type[NF4]] = FP4
