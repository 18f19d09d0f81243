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


Batches: TypeAlias = Sequence[Mapping[str, Any]]


def make_evaluate(loss_fn: LossFn, batches: Batches | Mapping[str, Batches], *, mesh: Mesh | None = None) -> Evaluate:
    """A function that gives loss = Σ loss sums / Σ weights over all batches, "weight", and the loss's own metrics.

    Every target counts once, however unevenly the batches are filled. The loss is called with rng=None. Batches by
    name (the parts of a mixture) also give "loss/<name>" of each.

    Raises:
      ValueError: there are no batches, or none of them has a target; the same of a part.
    """
    named: dict[str, Batches] = dict(batches) if isinstance(batches, Mapping) else {"": batches}
    for name, part in named.items():
        _require_targets(part, f"held-out set of {name!r}" if name else "held-out set")
    fixed = [batch for part in named.values() for batch in part]

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
        each, done = {}, 0
        for name, part in named.items():
            own, done = parts[done : done + len(part)], done + len(part)
            each[f"loss/{name}"] = sum(float(value) for value, _ in own) / sum(float(a["weight"]) for _, a in own)
        return {"loss": loss / aux["weight"], "weight": aux["weight"], **means} | (each if "" not in named else {})

    return evaluate


def _require_targets(batches: Sequence[Mapping[str, Any]], what: str) -> None:
    if not batches:
        raise ValueError(f"the {what} is empty: evaluation needs at least one batch")
    masks = [batch.get("loss_mask") for batch in batches]
    # Of several hosts, one may hold only the padding of the last batch.
    if jax.process_count() == 1 and all(isinstance(mask, np.ndarray) and not mask.any() for mask in masks):
        raise ValueError(f"every position of the {len(batches)} batches of the {what} is masked: nothing to score")
