"""Several LoRA adapters of one base: each row of a batch through its own, or a weighted sum of them.

B batch · n adapters · R rank
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from research.core import tree
from research.core.types import Array, Params
from research.weights.lora import LoRA, Routed
from research.weights.wrapper import is_wrapper, over_wrappers


def _together(adapted: Sequence[Params]) -> tuple[list[list[LoRA]], Any]:
    """The wrapped weights of every tree, and how the first tree is put together again.

    Raises:
      ValueError: no tree, trees whose adapters sit on different weights, or an adapter that is no plain LoRA.
    """
    if not adapted:
        raise ValueError("no adapter was given")
    flat = [jax.tree_util.tree_flatten_with_path(p, is_leaf=is_wrapper) for p in adapted]
    places = [{tree.path_of(k) for k, node in leaves if is_wrapper(node)} for leaves, _ in flat]
    for i, found in enumerate(places):
        if found != places[0]:
            raise ValueError(f"adapter {i} sits on other weights than adapter 0: {sorted(found ^ places[0])}")
    wrapped = [[node for _, node in leaves if is_wrapper(node)] for leaves, _ in flat]
    for node in (node for nodes in wrapped for node in nodes):
        if not isinstance(node, LoRA):
            raise ValueError(f"only LoRA adapters go together; given a {type(node).__name__}")
    return wrapped, flat[0]


def _rebuilt(first: Any, nodes: Sequence[Any]) -> Params:
    leaves, structure = first
    put = iter(nodes)
    return jax.tree_util.tree_unflatten(structure, [next(put) if is_wrapper(n) else n for _, n in leaves])


def pool(adapted: Sequence[Params]) -> Params:
    """One tree that holds all adapters on the first tree's base; smaller ranks are filled up with zeros.

    Choose among them with `route`; adapter i of the list has the id i.
    """
    wrapped, first = _together(adapted)

    def joined(nodes: Sequence[LoRA]) -> Routed:
        rank = max(node.a.shape[-1] for node in nodes)
        grow = lambda x, axis: jnp.pad(  # noqa: E731
            x, [(0, rank - x.shape[axis]) if i == x.ndim + axis else (0, 0) for i in range(x.ndim)]
        )
        a = jnp.stack([grow(node.a, -1) for node in nodes], axis=-3)
        b = jnp.stack([grow(node.b, -2) for node in nodes], axis=-3)
        scale = jnp.stack([node.scale for node in nodes], axis=-1)
        return Routed(nodes[0].base, a, b, scale, jnp.zeros((*scale.shape[:-1], 1), jnp.int32), nodes[0].name)

    return _rebuilt(first, [joined(nodes) for nodes in zip(*wrapped, strict=True)])


def route(params: Params, ids: Sequence[int] | Array) -> Params:
    """The pool with row i of the batch going through adapter ids[i]; another choice of ids compiles nothing anew.

    Raises:
      ValueError: an id that no adapter has.
    """
    chosen = jnp.asarray(ids, jnp.int32)
    sizes = {n.scale.shape[-1] for n in jax.tree.leaves(params, is_leaf=is_wrapper) if isinstance(n, Routed)}
    if not sizes:
        raise ValueError("the tree holds no pool of adapters; make one with `pool`")
    if not isinstance(chosen, jax.core.Tracer) and (int(chosen.min()) < 0 or int(chosen.max()) >= min(sizes)):
        raise ValueError(f"adapter ids {chosen.tolist()} are not all in 0..{min(sizes) - 1}")

    def placed(node: Any) -> Any:
        if not isinstance(node, Routed):
            return node
        return node.replace(ids=jnp.broadcast_to(chosen, (*node.scale.shape[:-1], len(chosen))))  # type: ignore[attr-defined]

    return over_wrappers(placed, params)


def mix(adapted: Sequence[Params], weights: Sequence[float]) -> Params:
    """Σ weight · adapter as one LoRA of the summed rank, exactly: A side by side, weighted B on top of each other."""
    wrapped, first = _together(adapted)
    if len(weights) != len(adapted):
        raise ValueError(f"{len(adapted)} adapters need as many weights; given {len(weights)}")

    def summed(nodes: Sequence[LoRA]) -> LoRA:
        a = jnp.concatenate([node.a for node in nodes], axis=-1)
        b = jnp.concatenate(
            [w * node.scale[..., None, None] * node.b for w, node in zip(weights, nodes, strict=True)], axis=-2
        )
        return LoRA(nodes[0].base, a, b, jnp.ones_like(nodes[0].scale), nodes[0].dropout, nodes[0].name)

    return _rebuilt(first, [summed(nodes) for nodes in zip(*wrapped, strict=True)])
