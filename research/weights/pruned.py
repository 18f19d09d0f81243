"""A weight of which some numbers are zero for good: a mask around any other weight.

The mask may stand around an adapter: pruning what LoRA has changed keeps the sum sparse, so that merging does too.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from research.core.types import Array
from research.ops.linear import dense
from research.weights.wrapper import Dense, is_wrapper


@struct.dataclass
class Pruned(Dense):
    """W where the mask is true, 0 elsewhere; the zeros get no gradient.

    Attributes:
      base: [..., I, O], or a table. mask: booleans of the same shape, which never learn.
    """

    base: Any
    mask: Array
    name: str = struct.field(pytree_node=False, default="pruned")

    def layouts(self, spec: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
        """The mask is cut like its weight."""
        return {"mask": spec}


@dense.register
def _(w: Pruned) -> Array:
    weight = dense(w.base)
    return jnp.where(w.mask, weight, jnp.zeros((), weight.dtype))


def sparsity(weight: Any) -> float:
    """The share of a weight's numbers that are zero: of its mask where it has one."""
    while is_wrapper(weight) and not isinstance(weight, Pruned):
        weight = weight.base
    kept = np.asarray(weight.mask) if isinstance(weight, Pruned) else np.asarray(dense(weight)) != 0
    return 1 - float(kept.mean())
