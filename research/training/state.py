"""The state of a run: everything that a step changes, in one tree."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from research.core import hosts, tree
from research.core import mesh as meshes
from research.training.loss_scale import LossScale
from research.training.optim import Optimizer


@flax.struct.dataclass
class State:
    """Trainable weights, optimizer moments, random key, the number of steps done, and a loss scale in float16."""

    step: jax.Array
    params: Any
    opt_state: Any
    rng: jax.Array
    loss_scale: LossScale | None = None


def create(
    params: Any | Callable[[], Any],
    optimizer: Optimizer,
    *,
    rng: jax.Array,
    trainable: Any = None,
    loss_scale: LossScale | None = None,
    mesh: Mesh | None = None,
    rules: meshes.Rules = meshes.RULES,
    heads: meshes.Heads = (),
) -> tuple[State, Any]:
    """(state, frozen) at step 0, laid out on the mesh; the state owns fresh copies, so a step may donate it.

    params: a tree, or a function that makes one (then no device ever holds a weight that is sharded whole).
    trainable: a tree of booleans (`tree.select`); None trains everything. The optimizer must have been made for
    the trainable part: `tree.split(params, trainable)[0]`.
    loss_scale: of float16 products (`training.loss_scale.make`).

    Raises:
      ValueError: the mesh does not fit a weight (see `core.mesh.shardings`), or nothing is trainable.
    """
    make = params if callable(params) else lambda: params
    if trainable is not None and not any(jax.tree.leaves(trainable)):
        raise ValueError("nothing to train: the mask of trainable weights is false everywhere")

    def begin(weights: Any) -> tuple[State, Any]:
        chosen, frozen = (weights, None) if trainable is None else tree.split(weights, trainable)
        # A weakly typed weight (`jnp.full(shape, 0.1)`) would compile the step a second time for its strong successor.
        chosen = jax.tree.map(lambda w: jnp.copy(jax.lax.convert_element_type(w, w.dtype)), chosen)
        scale = jax.tree.map(jnp.copy, loss_scale)
        return State(jnp.zeros((), jnp.int32), chosen, optimizer.init(chosen), jnp.copy(rng), scale), frozen

    if mesh is None:
        return jax.jit(begin)(params) if not callable(params) else jax.jit(lambda: begin(make()))()
    layout = shardings(jax.eval_shape(lambda: begin(make())), mesh, rules=rules, heads=heads)
    with jax.set_mesh(mesh):
        if callable(params):
            return jax.jit(lambda: begin(make()), out_shardings=layout)()
        if hosts.several():  # what lies on a device of this host alone cannot enter a program of all
            params = jax.tree.map(np.asarray, params)
        return jax.jit(begin, out_shardings=layout)(params)


def shardings(abstract: Any, mesh: Mesh, *, rules: meshes.Rules = meshes.RULES, heads: meshes.Heads = ()) -> Any:
    """Layouts for (state, frozen): the weights by the rules, moments like their weights, the rest replicated."""
    state, frozen = abstract
    weights = state.params if frozen is None else tree.merge(state.params, frozen)
    table = meshes.specs(weights, rules, mesh, heads=heads)
    return meshes.follow(abstract, weights, table, mesh)


def abstract(state: Any) -> Any:
    """The shapes, types and layouts of a tree of arrays: what a checkpoint needs to restore it."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
