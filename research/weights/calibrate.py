"""What the inputs of each weight look like on real text: the facts that calibrated quantization needs.

A weight is wrapped in `Observed`, whose backward pass returns facts about its input as the "gradient" of a tree of
zeros. So one `jax.grad` collects them for all layers, through any scan, remat and family; models know nothing of it.

I input features · L layers
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from research.core import tree
from research.core.names import meant
from research.core.types import Array, Params
from research.ops.linear import dense, embed, linear, unembed
from research.weights import targets
from research.weights.wrapper import Wrapper

# Bins of |x| are evenly spaced in log2, so that counts can be added whatever the range turns out to be.
_PER_OCTAVE, _LOWEST, _OCTAVES = 64, -24, 48
RANGES = ("absmax", "percentile", "mse")


@struct.dataclass
class Statistic:
    """Facts about the inputs x of one weight, with a layer axis in front for weights in layers.

    Attributes:
      gram: Σ xᵀ x over tokens, [I, I]. peak: max |x| per feature, [I]. total: Σ |x| per feature, [I].
      histogram: how often |x| fell into each bin. count: how many tokens there were.
    """

    gram: Array
    peak: Array
    total: Array
    histogram: Array
    count: Array


Statistics: TypeAlias = Mapping[str, Statistic]


@struct.dataclass
class Observed(Wrapper):
    """The base, with a place where the facts arrive in the backward pass."""

    TRAINS: ClassVar[tuple[str, ...]] = ("sink",)
    base: Any
    sink: Statistic
    name: str = struct.field(pytree_node=False, default="observed")


def _facts(x: Array) -> Statistic:
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    size = jnp.abs(rows)
    bins = jnp.floor((jnp.log2(jnp.maximum(size, 2.0**_LOWEST)) - _LOWEST) * _PER_OCTAVE).astype(jnp.int32)
    histogram = jnp.zeros((_PER_OCTAVE * _OCTAVES,), jnp.float32).at[bins.reshape(-1)].add(1.0, mode="clip")
    gram = jax.lax.dot_general(rows, rows, (((0,), (0,)), ((), ())), precision=jax.lax.Precision.HIGHEST)
    return Statistic(gram, jnp.max(size, 0), jnp.sum(size, 0), histogram, jnp.float32(len(rows)))


@jax.custom_vjp
def _watched(x: Array, sink: Statistic) -> Array:
    del sink
    return x


def _watched_forward(x: Array, sink: Statistic) -> tuple[Array, Array]:
    return _watched(x, sink), x


def _watched_backward(x: Array, g: Array) -> tuple[Array, Statistic]:
    return g, _facts(x)


_watched.defvjp(_watched_forward, _watched_backward)


@linear.register
def _(w: Observed, x: Array, bias: Array | None = None, rng: Array | None = None) -> Array:
    return linear(w.base, _watched(x, w.sink), bias, rng)


@unembed.register
def _(w: Observed, h: Array) -> Array:
    return unembed(w.base, _watched(h, w.sink))


@embed.register
def _(w: Observed, ids: Array) -> Array:
    return embed(w.base, ids)


@dense.register
def _(w: Observed) -> Array:
    return dense(w.base)


def _blank(path: str, weight: Any) -> Statistic:
    stack, shape = targets.per_layer(path, weight)
    I = shape[-1] if path.endswith("/embedding") else shape[0]
    zeros = lambda *s: jnp.zeros((*stack, *s), jnp.float32)  # noqa: E731
    return Statistic(zeros(I, I), zeros(I), zeros(I), zeros(_PER_OCTAVE * _OCTAVES), zeros())


def _by_weight(nodes: Mapping[str, Statistic]) -> dict[str, Statistic]:
    """Runs joined to whole stacks: generic path -> statistic."""
    parts: dict[str, list[Statistic]] = {}
    for path in sorted(nodes, key=lambda p: targets.layer_of(p) or 0):
        parts.setdefault(tree.generic(path), []).append(nodes[path])
    join = lambda *leaves: jnp.concatenate(leaves) if len(leaves) > 1 else leaves[0]  # noqa: E731
    return {name: jax.tree.map(join, *found) for name, found in parts.items()}


def blank(params: Params) -> dict[str, Statistic]:
    """Statistics of no token for every matrix of the tree: what shapes are worked out with."""
    nodes = jax.tree_util.tree_leaves_with_path(params, is_leaf=targets.is_weight)
    named = {tree.path_of(keys): node for keys, node in nodes}
    return _by_weight(
        {path: _blank(path, node) for path, node in named.items() if len(targets.per_layer(path, node)[1]) == 2}
    )


def calibrate(
    run: Callable[[Params, Any], Array],
    params: Params,
    batches: Iterable[Any],
    *,
    target: str | tuple[str, ...] = targets.KERNELS,
) -> dict[str, Statistic]:
    """Facts about the inputs of the weights that `target` matches, over all batches, by generic path.

    run: (params, batch) -> any array that depends on all of these weights, such as the hidden states or, for an output
      layer, the logits. Padding counts like any token: use full rows.

    Raises:
      ValueError: no batch, a weight that `run` does not use, or an activation that is NaN or infinite.
    """
    params = tree.stack(params)
    found = targets.chosen(params, target)
    watched = targets.replaced(params, {path: Observed(node, _blank(path, node)) for path, node in found.items()})
    inside = tree.map_with_path(lambda path, _: "/sink/" in path, watched)
    sinks, frozen = tree.split(watched, inside)

    @jax.jit
    def facts(sinks: Any, frozen: Any, batch: Any) -> Any:
        return jax.grad(lambda s: jnp.sum(run(tree.merge(s, frozen), batch).astype(jnp.float32)))(sinks)

    total: Any = None
    for batch in batches:
        new = facts(sinks, frozen, batch)
        total = new if total is None else tree.map_with_path(_joined, total, new)
    if total is None:
        raise ValueError("the calibration set is empty: expected at least one batch of text")
    nodes = jax.tree_util.tree_leaves_with_path(total, is_leaf=lambda node: isinstance(node, Observed))
    statistics = _by_weight({tree.path_of(keys): node.sink for keys, node in nodes if isinstance(node, Observed)})
    for name, statistic in statistics.items():
        if not np.all(np.asarray(statistic.count)):
            raise ValueError(f"the calibration run does not use {name!r}; run the model up to its logits")
        if not np.all(np.isfinite(np.asarray(statistic.gram))):
            raise ValueError(f"the inputs of {name!r} are NaN or infinite on the calibration set")
    return statistics


def _joined(path: str, first: Array, second: Array) -> Array:
    return jnp.maximum(first, second) if path.endswith("/peak") else first + second


def find(statistics: Statistics | None, path: str, weight: Any) -> Statistic:
    """The statistic of a weight at a full path, of the layers that its run holds.

    Raises:
      ValueError: there is none.
    """
    if statistics is None:
        raise ValueError(f"{path!r} needs statistics of its inputs: call `quantize` with `run` and `batches`")
    name = tree.generic(path)
    if name not in statistics:
        raise ValueError(f"no statistics of {name!r}{meant(name, statistics)}; have {sorted(statistics)}")
    first = targets.layer_of(path)
    if first is None:
        return statistics[name]
    return jax.tree.map(lambda leaf: leaf[first : first + weight.shape[0]], statistics[name])


def clipping(statistic: Statistic, how: str, *, percentile: float = 99.99, levels: int = 127) -> Array:
    """The largest |x| that an even grid of ±`levels` should hold, float32 with the statistic's layer axis.

    how: "absmax", the largest that was seen; "percentile" of all |x|; "mse", the one with the least squared error.
    """
    if how not in RANGES:
        raise ValueError(f"unknown range {how!r}{meant(how, RANGES)}; have {list(RANGES)}")
    peak = jnp.max(statistic.peak, axis=-1)
    if how == "absmax":
        return peak
    steps = jnp.arange(_PER_OCTAVE * _OCTAVES, dtype=jnp.float32)
    if how == "percentile":
        share = jnp.cumsum(statistic.histogram, -1) / jnp.sum(statistic.histogram, -1, keepdims=True)
        at = jnp.argmax(share >= percentile / 100, axis=-1)
        return jnp.minimum(2.0 ** ((at + 1) / _PER_OCTAVE + _LOWEST), peak)
    middle = 2.0 ** ((steps + 0.5) / _PER_OCTAVE + _LOWEST)

    def error(fraction: Array) -> Array:
        scale = (peak * fraction / levels)[..., None]
        held = jnp.clip(jnp.round(middle / scale), 0, levels) * scale
        return jnp.sum(statistic.histogram * (middle - held) ** 2, -1)

    fractions = jnp.arange(1, 101, dtype=jnp.float32) / 100
    errors = jax.lax.map(error, fractions)
    return peak * fractions[jnp.argmin(errors, axis=0)]
