"""Which weights a method touches: patterns on generic paths, narrowed to a range of layers."""

import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from research.core import tree
from research.core.types import Array, Params
from research.weights.packed import is_packed
from research.weights.wrapper import is_wrapper

KERNELS = r".*/layers/.*/kernel"
QUERY_VALUE = r".*/(attention|cross)/(q|v)/kernel"
_IN_LAYER = re.compile(rf"(^|/){tree.LAYERS}/(\d+)/")


def is_weight(node: Any) -> bool:
    """Whether a node of a tree is one weight made of several arrays."""
    return is_wrapper(node) or is_packed(node)


def depth(params: Params) -> int:
    """How many layers each stack has.

    Raises:
      ValueError: the stacks differ, so that a range of layers would mean two things.
    """
    depths = set(_depths(params))
    if len(depths) > 1:
        raise ValueError(f"the stacks have {sorted(depths)} layers: a range of layers needs stacks of equal depth")
    return depths.pop() if depths else 0


def _depths(node: Any) -> list[int]:
    if not isinstance(node, Mapping):
        return []
    out = []
    for name, sub in node.items():
        if name == tree.LAYERS and isinstance(sub, Mapping):
            out.append(max(int(first) + tree.run_length(run) for first, run in sub.items()))
        else:
            out += _depths(sub)
    return out


def bounds(params: Params, layers: Sequence[int]) -> tuple[int, int]:
    """(first, stop) of a range of layers; negative numbers count from the end.

    Raises:
      ValueError: the range is no pair, or holds no layer.
    """
    total = depth(params)
    if len(layers) != 2:
        raise ValueError(f"layers is a pair (first, stop); given {tuple(layers)}")
    first, stop = (n + total if n < 0 or (n == 0 and i == 1) else n for i, n in enumerate(layers))
    if not 0 <= first < stop <= total:
        raise ValueError(f"layers {tuple(layers)} holds none of the model's {total} layers")
    return first, stop


def cut(params: Params, layers: Sequence[int]) -> Params:
    """Runs cut where the range begins and ends, so that inside and outside may differ."""
    return tree.cut(params, bounds(params, layers)) if layers else params


def layer_of(path: str) -> int | None:
    """The first layer of the run that a path lies in; None outside layers."""
    found = _IN_LAYER.search(path)
    return int(found.group(2)) if found else None


def chosen(params: Params, target: str | Sequence[str], layers: Sequence[int] = ()) -> dict[str, Any]:
    """The nodes (weights, wrapped or not) that the patterns match, by full path; runs must be cut at the range.

    Raises:
      ValueError: a pattern matches nothing; nearest candidates are named.
    """
    nodes = {tree.path_of(keys): node for keys, node in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_weight)}
    patterns = [target] if isinstance(target, str) else list(target)
    for pattern in patterns:
        tree.require_match(pattern, (tree.generic(path) for path in nodes))
    first, stop = bounds(params, layers) if layers else (0, math.inf)
    return {
        path: node
        for path, node in nodes.items()
        if any(re.fullmatch(p, tree.generic(path)) for p in patterns)
        and ((at := layer_of(path)) is None or first <= at < stop)
    }


def replaced(params: Params, nodes: Mapping[str, Any]) -> Params:
    """The tree with other nodes at the given paths."""
    put = lambda keys, node: nodes.get(tree.path_of(keys), node)  # noqa: E731
    return jax.tree_util.tree_map_with_path(put, params, is_leaf=is_weight)


def drawn(key: Array, path: str, shape: Sequence[int], draw: Callable[[Array, tuple[int, ...]], Array]) -> Array:
    """Random numbers of a weight: per layer where it lies in layers, so that cutting runs never changes them.

    shape: with the layer axis in front for a weight inside layers.
    """
    own = jax.random.fold_in(key, zlib.crc32(tree.generic(path).encode()) & 0x7FFFFFFF)
    first = layer_of(path)
    if first is None:
        return draw(own, tuple(shape))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(own, jax.numpy.arange(first, first + shape[0]))
    return jax.vmap(lambda k: draw(k, tuple(shape[1:])))(keys)


def per_layer(path: str, node: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(layer axis or (), shape within one layer) of a weight."""
    shape = tuple(node.shape)
    return ((), shape) if layer_of(path) is None else (shape[:1], shape[1:])
