"""Held-out loss: the same weighted sum as in training, over a fixed set of batches, without dropout."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh

from research.core import mesh as meshes
from research.core import tree
from research.training.step import LossFn

Evaluate: TypeAlias = Callable[[Any, Any], dict[str, float]]
"""(trainable weights, frozen weights) -> named means."""


def make_evaluate(loss_fn: LossFn, batches: Sequence[Mapping[str, Any]], *, mesh: Mesh | None = None) -> Evaluate:
    """A function that gives loss = Σ loss sums / Σ weights over all batches, "weight", and the loss's own metrics.

    Every target counts once, however unevenly the batches are filled. The loss is called with rng=None.

    Raises:
      ValueError: there are no batches, or none of them has a target.
    """
    fixed = list(batches)
    if not fixed:
        raise ValueError("the held-out set is empty: evaluation needs at least one batch")
    masks = [batch.get("loss_mask") for batch in fixed]
    if all(isinstance(mask, np.ndarray) and not mask.any() for mask in masks):
        raise ValueError(f"every position of the {len(fixed)} held-out batches is masked: there is nothing to score")

    @jax.jit
    def sums(params: Any, frozen: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, dict[str, Any]]:
        weights = params if frozen is None else tree.merge(params, frozen)
        return loss_fn(weights, batch, None)

    def evaluate(params: Any, frozen: Any = None) -> dict[str, float]:
        with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
            parts = [sums(params, frozen, meshes.place(batch, mesh)) for batch in fixed]
        # Sums of many batches are added in float64 on the host.
        total = jax.tree.map(lambda *xs: float(np.sum([np.asarray(x, np.float64) for x in xs])), *parts)
        loss, aux = total
        means = {name: value / weight for name, (value, weight) in aux.get("metrics", {}).items() if weight}
        return {"loss": loss / aux["weight"], "weight": aux["weight"], **means}

    return evaluate
