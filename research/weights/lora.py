"""Low-rank adapters: y = x W + s (x A) B, their rank-stabilised and weight-decomposed forms, and many of them at once.

B batch · T length · I input features · O output features · R rank · n adapters
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from research.core.types import Array, Params
from research.ops.dot import add_bias, dot
from research.ops.linear import dense, embed, linear, unembed
from research.weights import targets
from research.weights.wrapper import Wrapper, folded_bias


@struct.dataclass
class LoRA(Wrapper):
    """W + s A B. See *LoRA: Low-Rank Adaptation of Large Language Models*, https://arxiv.org/abs/2106.09685.

    Attributes:
      base: [..., I, O], of any type. a: [..., I, R]. b: [..., R, O]. scale: [...], s.
      dropout: rate on the input of A while training. name: which adapter this is.
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("a", "b")
    base: Any
    a: Array
    b: Array
    scale: Array
    dropout: float = struct.field(pytree_node=False, default=0.0)
    name: str = struct.field(pytree_node=False, default="default")

    def layouts(self, spec: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
        """A follows the rows of the base, B its columns."""
        *rest, i, o = spec
        return {"a": (*rest, i, None), "b": (*rest, None, o)}


@struct.dataclass
class DoRA(Wrapper):
    """m · (W + s A B) / ‖W + s A B‖, norms over the input features of each output.

    The norm counts as a constant in the gradient, as in the paper. See *DoRA: Weight-Decomposed Low-Rank Adaptation*,
    https://arxiv.org/abs/2402.09353.

    Attributes:
      magnitude: [..., O], m. The rest as in `LoRA`.
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("a", "b", "magnitude")
    base: Any
    a: Array
    b: Array
    scale: Array
    magnitude: Array
    dropout: float = struct.field(pytree_node=False, default=0.0)
    name: str = struct.field(pytree_node=False, default="default")

    def layouts(self, spec: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
        """As `LoRA`, and the magnitudes follow the columns."""
        *rest, i, o = spec
        return {"a": (*rest, i, None), "b": (*rest, None, o), "magnitude": (*rest, o)}


@struct.dataclass
class Routed(Wrapper):
    """n LoRA adapters on one base; row i of the batch goes through adapter ids[i].

    Attributes:
      base: [..., I, O]. a: [..., n, I, R]. b: [..., n, R, O]. scale: [..., n]. ids: [..., B].
    """

    base: Any
    a: Array
    b: Array
    scale: Array
    ids: Array
    name: str = struct.field(pytree_node=False, default="default")


def _low_rank(x: Array, a: Array, b: Array, scale: Array) -> Array:
    # Scaled where it is narrow: [..., R] instead of [..., O].
    narrow = dot(x, a).astype(jnp.float32) * scale
    return dot(narrow.astype(x.dtype), b)


def _dropped(x: Array, rate: float, rng: Array | None) -> Array:
    if rng is None or rate == 0:
        return x
    keep = jax.random.bernoulli(jax.random.fold_in(rng, 1), 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def _delta(w: LoRA | DoRA) -> Array:
    product = jnp.matmul(w.a, w.b, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
    return product * w.scale[..., None, None]


@linear.register
def _(w: LoRA, x: Array, bias: Array | None = None, rng: Array | None = None) -> Array:
    return linear(w.base, x, bias, rng) + _low_rank(_dropped(x, w.dropout, rng), w.a, w.b, w.scale)


@dense.register
def _(w: LoRA) -> Array:
    base = dense(w.base)
    return (base.astype(jnp.float32) + _delta(w)).astype(base.dtype)


@embed.register
def _(w: LoRA, ids: Array) -> Array:
    rows = embed(w.base, ids)
    a = jnp.take(w.a, ids, axis=0, mode="clip")
    return rows + (dot(a, w.b) * w.scale).astype(rows.dtype)


@unembed.register
def _(w: LoRA, h: Array) -> Array:
    narrow = (unembed(w.b, h) * w.scale).astype(h.dtype)
    return unembed(w.base, h) + unembed(w.a, narrow)


def _directed(w: DoRA) -> tuple[Array, Array]:
    """W + s A B in float32, and m over its column norms [..., O]."""
    weight = dense(w.base).astype(jnp.float32) + _delta(w)
    norm = lax.stop_gradient(jnp.linalg.norm(weight, axis=-2))
    return weight, w.magnitude / norm


@linear.register
def _(w: DoRA, x: Array, bias: Array | None = None, rng: Array | None = None) -> Array:
    _, gain = _directed(w)
    y = linear(w.base, x, None, rng) + _low_rank(_dropped(x, w.dropout, rng), w.a, w.b, w.scale)
    y = (y * gain).astype(x.dtype)
    return y if bias is None else add_bias(y, folded_bias(w.base, bias))


@dense.register
def _(w: DoRA) -> Array:
    weight, gain = _directed(w)
    return (weight * gain[..., None, :]).astype(dense(w.base).dtype)


@linear.register
def _(w: Routed, x: Array, bias: Array | None = None, rng: Array | None = None) -> Array:
    y = linear(w.base, x, bias, rng)
    if x.shape[0] != w.ids.shape[0]:
        raise ValueError(f"the batch has {x.shape[0]} rows, but adapters were chosen for {w.ids.shape[0]}")
    a, b, scale = (jnp.take(part, w.ids, axis=0).astype(jnp.float32) for part in (w.a, w.b, w.scale))
    a, b = a.astype(x.dtype), b.astype(x.dtype)
    rows = x.reshape(x.shape[0], -1, x.shape[-1])
    batched = (((2,), (1,)), ((0,), (0,)))
    narrow = lax.dot_general(rows, a, batched, preferred_element_type=jnp.float32) * scale[:, None, None]
    wide = lax.dot_general(narrow.astype(x.dtype), b, batched, preferred_element_type=jnp.float32)
    return y + wide.astype(y.dtype).reshape(y.shape)


@dense.register
def _(w: Routed) -> Array:
    raise ValueError(f"rows go through {w.scale.shape[-1]} different adapters: there is no one merged weight")


@dataclass(frozen=True)
class Lora:
    """Low-rank updates of the chosen kernels; A starts uniform in ±I^-½, B at zero, so nothing changes at first.

    Attributes:
      target: patterns of generic paths. layers: (first, stop), empty: all.
      rank: R. alpha: s = alpha / R, or alpha / √R if `stabilized` (rsLoRA, https://arxiv.org/abs/2312.03732).
      dropout: on the input of A. decomposed: DoRA.
    """

    target: str | tuple[str, ...] = targets.QUERY_VALUE
    layers: tuple[int, ...] = ()
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    stabilized: bool = False
    decomposed: bool = False
    rate_ratio: float = 1.0
    name: str = "default"

    def attach(self, params: Params, key: Array) -> Params:
        """The tree with a `LoRA` or `DoRA` around every chosen weight."""
        params = targets.cut(params, self.layers)
        found = targets.chosen(params, self.target, self.layers)
        return targets.replaced(params, {path: self._wrap(path, node, key) for path, node in found.items()})

    def _wrap(self, path: str, base: Any, key: Array) -> LoRA | DoRA:
        stack, shape = targets.per_layer(path, base)
        if len(shape) != 2:
            raise ValueError(f"LoRA adapts matrices; {path!r} has shape {shape} within a layer")
        I, O = shape
        if not 1 <= self.rank <= min(I, O):
            raise ValueError(f"rank {self.rank} does not fit {path!r} of {I} x {O}; expected 1 to {min(I, O)}")
        draw = lambda k, s: jax.random.uniform(k, s, jnp.float32, -(I**-0.5), I**-0.5)  # noqa: E731
        a = targets.drawn(key, path, (*stack, I, self.rank), draw)
        b = jnp.zeros((*stack, self.rank, O), jnp.float32)
        scale = jnp.full(stack, self.alpha / (self.rank**0.5 if self.stabilized else self.rank), jnp.float32)
        if not self.decomposed:
            return LoRA(base, a, b, scale, self.dropout, self.name)
        magnitude = jnp.linalg.norm(dense(base).astype(jnp.float32), axis=-2)
        return DoRA(base, a, b, scale, magnitude, self.dropout, self.name)
