"""AWQ: the features with large activations are scaled up before rounding, so that their weights are rounded finer.

See *AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration*, https://arxiv.org/abs/2306.00978.

I input features · O output features · L layers of a run
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from research.core.types import Array, Params
from research.weights import grid
from research.weights.calibrate import Statistic, Statistics
from research.weights.gptq import output_error
from research.weights.grouped import SCALES, GroupedWeights
from research.weights.packed import as_rows
from research.weights.smooth import moved

_STEPS = 20
_SMALLEST = 1e-4


@dataclass(frozen=True)
class AwqWeights(GroupedWeights):
    """s = (mean |x|)^α, with the α of 20 in 0..1 that changes the outputs least; then rounded to the nearest.

    s is kept by the norm or the projection that writes the features (see `smooth`); kernels whose features are
    written elsewhere are rounded as they are. Weights are not clipped.
    """

    CALIBRATED: ClassVar[bool] = True

    def prepared(self, params: Params, statistics: Statistics | None, config: Any) -> Params:
        """The tree with the scales moved."""
        self.check()
        return moved(params, statistics, config, self._best, list(self.arrays(params)))

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
