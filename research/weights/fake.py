"""Quantization-aware training: weights are rounded in the forward pass and learn as if they had not been.

See *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*,
https://arxiv.org/abs/1712.05877, and *Estimating or Propagating Gradients Through Stochastic Neurons*,
https://arxiv.org/abs/1308.3432 (straight-through).

I input features · O output features
"""

from dataclasses import dataclass
from typing import Any

from flax import struct
from jax import lax

from research.core.types import Array, Params
from research.ops.linear import dense
from research.weights import grid, targets
from research.weights.grouped import SCALES, GroupedWeights
from research.weights.packed import as_rows, is_packed
from research.weights.quantizer import check
from research.weights.wrapper import Dense


@struct.dataclass
class FakeQuant(Dense):
    """W moved to the grid that `GroupedWeights` of the same bits and group would put it on.

    Attributes:
      base: [..., I, O], or a table, which learns. bits, group, symmetric: of the grid.
    """

    base: Any
    bits: int = struct.field(pytree_node=False, default=4)
    group: int = struct.field(pytree_node=False, default=64)
    symmetric: bool = struct.field(pytree_node=False, default=False)
    table: bool = struct.field(pytree_node=False, default=False)
    name: str = struct.field(pytree_node=False, default="qat")


@dense.register
def _(w: FakeQuant) -> Array:
    weight = dense(w.base)
    rows = as_rows(weight, w.table)
    moved = grid.rounded(grid.grouped(rows, w.group), w.bits, w.symmetric, SCALES)
    moved = grid.ungrouped(moved, rows.shape[-1])
    moved = as_rows(moved, w.table).astype(weight.dtype)
    return weight + lax.stop_gradient(moved - weight)


@dataclass(frozen=True)
class Qat:
    """Fake quantization of the chosen weights; beside it goes a rule that trains them ("full" or "select").

    What was learned is quantized by stripping this and applying "int4" or "int3" with the same options.

    Attributes:
      target, layers, bits, group, symmetric: as for group-wise weights.
    """

    target: str | tuple[str, ...] = targets.KERNELS
    layers: tuple[int, ...] = ()
    bits: int = 4
    group: int = 64
    symmetric: bool = False
    name: str = "qat"

    def attach(self, params: Params, key: Array) -> Params:
        """The tree with a `FakeQuant` around every chosen weight."""
        del key
        GroupedWeights(bits=self.bits, group=self.group).check()
        params = targets.cut(params, self.layers)
        nodes = {}
        for path, node in targets.chosen(params, self.target, self.layers).items():
            if is_packed(node):
                raise ValueError(f"{path!r} is quantized already: its integers cannot learn")
            check(path, node)
            table = path.endswith("/embedding")
            nodes[path] = FakeQuant(node, self.bits, self.group, self.symmetric, table, self.name)
        return targets.replaced(params, nodes)
