"""Two, three or four bits a weight on an even grid, one scale and zero for each group of neighbours in a row.

I input features · O output features · G groups in a row
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import struct

from research.core.types import Array
from research.weights import grid, packing
from research.weights.calibrate import Statistic
from research.weights.grid import Grid
from research.weights.packed import Packed
from research.weights.quantizer import Quantizer, check_block

SCALES = "float16"


@struct.dataclass
class Grouped(Packed):
    """value = (code - zero) · scale of the code's group.

    Attributes:
      codes: uint8 [..., O, n], see `packing`. scale: float16 [..., O, G].
      zero: uint8 [..., O, G], or None where the grid is symmetric.
      bits: of a code. group: numbers that share a scale. features: I.
    """

    codes: Array
    scale: Array
    zero: Array | None = None
    bits: int = struct.field(pytree_node=False, default=4)
    group: int = struct.field(pytree_node=False, default=64)
    features: int = struct.field(pytree_node=False, default=0)
    table: bool = struct.field(pytree_node=False, default=False)

    def rows(self) -> Array:
        """(code - zero) · scale, float32 [..., O, I]."""
        return self._values(self.codes, self.scale, self.zero)

    def take(self, ids: Array) -> Array:
        """Rows of a table."""
        return self._values(self.codes[ids], self.scale[ids], None if self.zero is None else self.zero[ids])

    def _values(self, codes: Array, scale: Array, zero: Array | None) -> Array:
        spread = lambda x: jnp.repeat(x.astype(jnp.float32), self.group, axis=-1)[..., : self.features]  # noqa: E731
        code = packing.unpack(codes, self.bits, self.features)
        middle = float(2 ** (self.bits - 1)) if zero is None else spread(zero)
        return (code.astype(jnp.float32) - middle) * spread(scale)

    def rows_shape(self) -> tuple[int, ...]:
        """[..., O, I]."""
        return (*self.codes.shape[:-1], self.features)

    def row_layouts(self, spec: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
        """Four-bit codes are cut like the numbers; bit planes only along the rows."""
        codes = spec if self.bits == 4 else (*spec[:-1], None)
        return {"codes": codes, "scale": spec, "zero": spec}


def packed(codes: Array, fitted: Grid, bits: int, group: int, symmetric: bool, table: bool) -> Grouped:
    """The weight of codes [..., O, I] on grids [..., O, G, 1]."""
    return Grouped(
        packing.pack(codes.astype(jnp.uint8), bits),
        fitted.scale[..., 0].astype(SCALES),
        None if symmetric else fitted.zero[..., 0].astype(jnp.uint8),
        bits=bits,
        group=group,
        features=codes.shape[-1],
        table=table,
    )


@dataclass(frozen=True)
class GroupedWeights(Quantizer):
    """Rounded to the nearest number of each group's own grid.

    Attributes:
      bits: 2, 3 or 4. group: neighbours that share a grid; 0: the whole row. symmetric: 0 in the middle of the grid.
    """

    bits: int = 4
    group: int = 64
    symmetric: bool = False

    def check(self) -> None:
        """Raises ValueError for bits or groups that cannot be packed."""
        if self.bits not in (2, 3, 4):
            raise ValueError(f"group-wise weights have 2, 3 or 4 bits; given {self.bits}")
        if self.group:
            check_block(self.group, "a group")

    def size(self, features: int) -> int:
        """How many numbers of a row share a grid."""
        return min(self.group or features, features)

    def pack(self, path: str, rows: Array, table: bool, statistic: Statistic | None) -> Packed:
        """Rounded to the nearest."""
        del path, statistic
        self.check()
        features = rows.shape[-1]
        groups = grid.grouped(rows, self.group)
        fitted = grid.fit(groups, self.bits, self.symmetric, SCALES)
        codes = grid.ungrouped(grid.codes(groups, fitted, self.bits, self.symmetric), features)
        return packed(codes, fitted, self.bits, self.size(features), self.symmetric, table)
