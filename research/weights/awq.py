"""AWQ: the features with large activations are scaled up before rounding, so that their weights are rounded finer.

See *AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration*, https://arxiv.org/abs/2306.00978.

I input features · O output features · L layers of a run
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from research.core import tree
from research.core.types import Array, Params
from research.weights import grid, targets
from research.weights.calibrate import Statistic, Statistics
from research.weights.gptq import output_error
from research.weights.grouped import SCALES, GroupedWeights
from research.weights.packed import Packed, as_rows
from research.weights.smooth import moved

_STEPS = 20
_SMALLEST = 1e-4
_SHRUNK = tuple(1 - step / _STEPS for step in range(_STEPS // 2))  # 1, 0.95, ... 0.55


@dataclass(frozen=True)
class AwqWeights(GroupedWeights):
    """s = (mean |x|)^α, with the α of 20 in 0..1 that changes the outputs least; then rounded to the nearest.

    s is kept by the norm or the projection that writes the features (see `smooth`); kernels whose features are
    written elsewhere are rounded as they are.

    Attributes:
      clip: then also the largest |w| of each group is lowered, to the share of 1 .. 0.55 that changes the outputs
        least; not of queries and keys, whose outputs are multiplied with each other.
    """

    CALIBRATED: ClassVar[bool] = True
    clip: bool = False

    def prepared(self, params: Params, statistics: Statistics | None, config: Any) -> tuple[Params, Statistics | None]:
        """The tree with the scales moved, and the statistics of the inputs that are left."""
        self.check()
        params, scales = moved(params, statistics, config, self._best, list(self.arrays(params)))
        return params, divided(statistics or {}, scales)

    def pack(self, path: str, rows: Array, table: bool, statistic: Statistic | None) -> Packed:
        """Rounded to the nearest, behind the clipping."""
        if self.clip and not path.endswith(("/q/kernel", "/k/kernel")):
            assert statistic is not None  # `attach` found it or refused
            rows = clipped(rows, statistic.gram, self.bits, self.size(rows.shape[-1]), self.symmetric)
        return super().pack(path, rows, table, statistic)

    def _best(self, kernels: list[Array], facts: list[Statistic]) -> Array:
        first = facts[0]
        mean = first.total / jnp.maximum(first.count, 1)[..., None]

        def scale(alpha: Array) -> Array:
            s = jnp.maximum(mean, _SMALLEST) ** alpha
            return s / jnp.sqrt(jnp.max(s, -1, keepdims=True) * jnp.min(s, -1, keepdims=True))

        def error(alpha: Array) -> Array:
            s = scale(alpha)[..., None, :]
            total = jnp.zeros(mean.shape[:-1])
            for kernel, fact in zip(kernels, facts, strict=True):
                rows = as_rows(kernel, False)
                moved = grid.rounded(grid.grouped(rows * s, self.group), self.bits, self.symmetric, SCALES)
                total += output_error(rows, grid.ungrouped(moved, rows.shape[-1]) / s, fact.gram)
            return total

        alphas = jnp.arange(_STEPS, dtype=jnp.float32) / _STEPS
        best = jnp.argmin(jax.lax.map(error, alphas), axis=0)
        return scale(alphas[best][..., None])


def divided(statistics: Statistics, scales: Mapping[str, Array]) -> Statistics:
    """The Gram matrices of inputs that were divided by s [L, I], by the paths of the runs' weights."""
    out = dict(statistics)
    for path, s in scales.items():
        name, first = tree.generic(path), targets.layer_of(path) or 0
        gram = out[name].gram.at[first : first + len(s)].divide(s[:, :, None] * s[:, None, :])
        out[name] = replace(out[name], gram=gram)
    return out


@partial(jax.jit, static_argnames=("bits", "group", "symmetric"))
def clipped(rows: Array, gram: Array, bits: int, group: int, symmetric: bool) -> Array:
    """Rows [..., O, I] with each group's numbers cut to ±share · max |w|.

    The share is the one of `_SHRUNK` with the least Σ (x · (w - w'))² over the inputs x of the group alone, w' as it is
    rounded on the grid of the cut numbers; gram [..., I, I] is Σ xᵀ x.
    """
    groups = grid.grouped(rows, group)
    G = groups.shape[-2]
    short = G * group - rows.shape[-1]
    square = jnp.pad(gram, [(0, 0)] * (gram.ndim - 2) + [(0, short)] * 2)
    square = square.reshape(*gram.shape[:-2], G, group, G, group)
    own = jnp.moveaxis(jnp.diagonal(square, axis1=-4, axis2=-2), -1, -3)
    largest = jnp.max(jnp.abs(groups), -1, keepdims=True)

    def error(share: Array) -> Array:
        cut = jnp.clip(groups, -share * largest, share * largest)
        gap = groups - grid.rounded(cut, bits, symmetric, SCALES)
        return jnp.einsum("...ogi,...gij,...ogj->...og", gap, own, gap)

    shares = jnp.asarray(_SHRUNK, jnp.float32)
    best = shares[jnp.argmin(jax.lax.map(error, shares), axis=0)][..., None]
    return grid.ungrouped(jnp.clip(groups, -best * largest, best * largest), rows.shape[-1])
