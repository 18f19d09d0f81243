"""What all methods that quantize share: which weights they take, what they refuse, and how they put the result back."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from research.core.types import Array, Params
from research.weights import targets
from research.weights.calibrate import Statistic, Statistics, find
from research.weights.packed import Packed, as_rows, is_packed
from research.weights.wrapper import is_wrapper


@dataclass(frozen=True)
class Quantizer:
    """Packs the chosen weights; those that an earlier rule of the recipe has packed are left as they are.

    Attributes:
      target: patterns of generic paths; embeddings are "embed/tokens/embedding", an output layer of its own is
        "head/table/embedding". layers: (first, stop), empty: all.
    """

    target: str | tuple[str, ...] = targets.KERNELS
    layers: tuple[int, ...] = ()

    CALIBRATED: ClassVar[bool] = False

    def pack(self, path: str, rows: Array, table: bool, statistic: Statistic | None) -> Packed:
        """The quantized weight of rows [..., O, I]; a calibrated method is given what its inputs were."""
        raise TypeError(f"{type(self).__name__} moves numbers and packs nothing")

    def prepared(self, params: Params, statistics: Statistics | None, config: Any) -> tuple[Params, Statistics | None]:
        """The tree before weights are packed, and its statistics, for methods that first move numbers about."""
        del config
        return params, statistics

    def attach(self, params: Params, key: Array, statistics: Statistics | None = None, config: Any = None) -> Params:
        """The tree with the chosen weights packed.

        statistics: from `calibrate`, for methods that need them. config: the model's, likewise.

        Raises:
          ValueError: a pattern without a match, a weight that is no matrix, is empty, under an adapter, or holds a NaN
            or an infinity.
        """
        del key
        params, statistics = self.prepared(targets.cut(params, self.layers), statistics, config)
        nodes = {}
        for path, weight in self.arrays(params).items():
            table = path.endswith("/embedding")
            statistic = find(statistics, path, weight) if self.CALIBRATED else None
            nodes[path] = self.pack(path, as_rows(weight, table), table, statistic)
        return targets.replaced(params, nodes)

    def arrays(self, params: Params) -> dict[str, Any]:
        """The weights that are to be packed, by full path; the tree is cut at the range already."""
        found = targets.chosen(params, self.target, self.layers)
        for path, node in found.items():
            if not is_packed(node):
                check(path, node)
        return {path: node for path, node in found.items() if not is_packed(node)}


def check(path: str, weight: Any) -> None:
    """Refuses what cannot be quantized; see `Quantizer.attach`."""
    if is_wrapper(weight):
        raise ValueError(f"{path!r} carries an adapter ({weight.name!r}): quantize the base first, then attach it")
    _, shape = targets.per_layer(path, weight)
    if len(shape) != 2:
        raise ValueError(f"matrices are quantized; {path!r} has shape {shape} within a layer")
    if 0 in weight.shape:
        raise ValueError(f"{path!r} of shape {tuple(weight.shape)} is empty: there is nothing to quantize")
    if bad := unfinite(weight):
        raise ValueError(f"{path!r} holds {bad} numbers that are NaN or infinite: no grid can hold them")


def unfinite(weight: Any) -> int:
    """How many of an array's numbers are NaN or infinite; 0 where only shapes are known."""
    if isinstance(weight, (jax.ShapeDtypeStruct, jax.core.Tracer)):
        return 0
    return int(np.sum(~np.isfinite(np.asarray(weight, np.float32))))


def check_block(size: int, what: str, *, even: bool = True) -> None:
    """Refuses blocks that codes cannot be packed in."""
    if size < 2 or (even and size % 2):
        raise ValueError(f"{what} is a{'n even' if even else ''} number of at least 2; given {size}")
