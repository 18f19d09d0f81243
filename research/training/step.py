"""The step: the only jitted program of training. It joins a loss, an optimizer and a state.

    loss_fn(params, batch, rng) -> (loss_sum, {"weight": scalar, "metrics": {name: (sum, weight)}})

Sums and weights are added over rows, micro-batches and devices and divided once, so the loss and its gradients do
not depend on padding, packing, accumulation or the mesh.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from research.core import mesh as meshes
from research.core import tree
from research.training.optim import Optimizer
from research.training.state import State

LossFn: TypeAlias = Callable[[Any, Mapping[str, jax.Array], jax.Array | None], tuple[jax.Array, dict[str, Any]]]


class Step:
    """`step(state, frozen, batch) -> (state, metrics)`; the given state is donated, its buffers are gone after."""

    def __init__(self, update: Callable[..., Any], *, accumulate: int, mesh: Mesh | None) -> None:
        self.update = update
        self.mesh = mesh
        self._accumulate = accumulate
        self._jitted: Any = None

    def __call__(self, state: State, frozen: Any, batch: Mapping[str, Any]) -> tuple[State, dict[str, jax.Array]]:
        """One update. Metrics are device scalars: loss, weight, grad_norm, learning_rate, and those of the loss.

        With a loss scale in the state also loss_scale (of this step), skipped (1 where loss or gradients were not
        finite: weights and moments stayed and the scale was halved) and skipped_steps (so far).

        Raises:
          ValueError: every position of the batch is masked, its rows do not split into the micro-batches, or the
            mesh does not divide it.
        """
        check_batch(batch, self._accumulate)
        with self._context():
            return self._compiled(state)(state, frozen, meshes.place(batch, self.mesh))

    def lower(self, state: State, frozen: Any, batch: Mapping[str, Any]) -> Any:
        """The lowered program (for cost analysis and profiles); nothing is run or donated."""
        with self._context():
            return self._compiled(state).lower(state, frozen, meshes.place(batch, self.mesh))

    def _context(self) -> Any:
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def _compiled(self, state: State) -> Any:
        if self._jitted is None:
            # The layout out must be the layout in: left to itself XLA may choose another, and recompile next time.
            layout: Any = None
            if self.mesh is not None:
                layout = (
                    jax.tree.map(lambda leaf: leaf.sharding, state),
                    NamedSharding(self.mesh, PartitionSpec()),
                )
            self._jitted = jax.jit(self.update, donate_argnums=0, out_shardings=layout)
        return self._jitted


def make_step(loss_fn: LossFn, optimizer: Optimizer, *, accumulate: int = 1, mesh: Mesh | None = None) -> Step:
    """A step that differentiates `loss_fn` with respect to the trainable weights.

    accumulate: micro-batches per update; row r of the batch goes to micro-batch r mod `accumulate`, so that rows
    stay on their device. The key of micro-batch i at update s is fold_in(fold_in(state.rng, s), i).
    """
    if accumulate < 1:
        raise ValueError(f"accumulate must be at least 1, given {accumulate}")

    def update(state: State, frozen: Any, batch: Mapping[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        key = jax.random.fold_in(state.rng, state.step)
        loss_sum, aux, grads = _gradients(loss_fn, state, frozen, batch, key, accumulate)
        weight, scale = aux["weight"], state.loss_scale
        # Sums over micro-batches are in float32; moments keep the type of their weights.
        grads = jax.tree.map(lambda g, w: (g / weight.astype(g.dtype)).astype(w.dtype), grads, state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        # A skipped update does not count in the schedule.
        counted = state.step if scale is None else state.step - scale.skipped
        metrics = {
            "loss": loss_sum / weight,
            "weight": weight,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": optimizer.learning_rate(counted),
            **{name: total / count for name, (total, count) in aux.get("metrics", {}).items()},
        }
        params = optax.apply_updates(state.params, updates)
        after = State(state.step + 1, params, opt_state, state.rng)
        return (after, metrics) if scale is None else _kept_finite(state, after, metrics)

    return Step(update, accumulate=accumulate, mesh=mesh)


def _kept_finite(before: State, after: State, metrics: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
    """The state after the step, with weights and moments as before where loss or gradients are not finite."""
    scale = before.loss_scale
    assert scale is not None
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    old, new = (before.params, before.opt_state), (after.params, after.opt_state)
    params, opt_state = jax.tree.map(lambda a, b: jnp.where(finite, b, a), old, new)
    following = scale.after(finite)
    told = {"loss_scale": scale.scale, "skipped": ~finite & scale.may_skip(), "skipped_steps": following.skipped}
    kept = dataclasses.replace(after, params=params, opt_state=opt_state, loss_scale=following)
    return kept, metrics | told


def _gradients(
    loss_fn: LossFn, state: State, frozen: Any, batch: Mapping[str, jax.Array], key: jax.Array, accumulate: int
) -> tuple[jax.Array, dict[str, Any], Any]:
    """(loss sum, summed aux, gradient of the loss sum) over all micro-batches."""
    scale = state.loss_scale

    def loss(trainable: Any, micro: Mapping[str, jax.Array], i: jax.Array | int) -> tuple[jax.Array, Any]:
        weights = trainable if frozen is None else tree.merge(trainable, frozen)
        total, aux = loss_fn(weights, micro, jax.random.fold_in(key, i))
        return total if scale is None else total * scale.factor(aux["weight"]), (total, aux)

    def one(i: jax.Array | int, micro: Mapping[str, jax.Array]) -> Any:
        (_, (total, aux)), grads = jax.value_and_grad(loss, has_aux=True)(state.params, micro, i)
        if scale is not None:
            grads = jax.tree.map(lambda g: g.astype(jnp.float32) / scale.factor(aux["weight"]), grads)
        return (total, aux), grads

    if accumulate == 1:
        (total, aux), grads = one(0, batch)
        return total, aux, grads
    split = {name: array.reshape(-1, accumulate, *array.shape[1:]).swapaxes(0, 1) for name, array in batch.items()}
    shapes = jax.eval_shape(one, 0, {name: array[0] for name, array in split.items()})
    # Sums are kept in float32, whatever the weights are stored in.
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.promote_types(s.dtype, jnp.float32)), shapes)

    def body(total: Any, item: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, one(*item)), None

    ((total, aux), grads), _ = jax.lax.scan(body, zeros, (jnp.arange(accumulate), split))
    return total, aux, grads


def check_batch(batch: Mapping[str, Any], accumulate: int = 1) -> None:
    """Refuses, on the host, a batch without a single target or whose rows do not split evenly.

    Raises:
      ValueError: says what was given and what is expected.
    """
    if not batch:
        raise ValueError("the batch is empty: it holds no array")
    for name, array in batch.items():
        if array.shape[0] % accumulate:
            raise ValueError(
                f"batch[{name!r}] has {array.shape[0]} rows, which do not split into {accumulate} micro-batches"
            )
    mask = batch.get("loss_mask")
    # With several hosts the other rows may have targets; if not, the loss says so.
    alone = jax.process_count() == 1
    if alone and isinstance(mask, np.ndarray) and not mask.any():
        raise ValueError(
            f"every one of the {mask.size} positions of the batch is masked: loss_mask is zero everywhere, "
            "so there is nothing to learn from it"
        )
