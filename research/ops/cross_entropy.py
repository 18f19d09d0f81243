"""Cross-entropy over a vocabulary without ever holding the full logits.

The sequence is walked in chunks along T (not along B·T, so a sharded batch is never gathered); each chunk's logits are
made, reduced and dropped. The gradient is computed in the same walk, in the forward pass: softmax minus one-hot
needs the very logits at hand, so nothing is computed twice and nothing but the gradients is kept.

B batch · T length · D model width · V vocabulary · C chunk length
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.sharding import PartitionSpec

from research.core.mesh import BATCH_AXES, cut_over
from research.core.types import Array
from research.ops.attention import softcap
from research.ops.linear import unembed

CHUNK = 128


class Sums(NamedTuple):
    """Sums over supervised tokens, all float32: negative log-likelihood in nats, weight, correct argmaxes.

    `rows`: the first of them for each row [B]; nothing is differentiated through it.
    """

    nll: Array
    weight: Array
    correct: Array
    rows: Array


def _chunks(x: Array, size: int) -> Array:
    """[B, T, ...] -> [T/(n C), B, n C, ...], zero-padded at the end of each part.

    Where a mesh cuts T into n parts, every chunk holds C positions of each, so that no device waits for another's
    and none sees more than its own; else n = 1.
    """
    B, T, *rest = x.shape
    n = _parts(T)
    size = min(size, T // n)
    m = -(-T // (n * size))
    x = x.reshape(B, n, T // n, *rest)
    x = jnp.pad(x, [(0, 0), (0, 0), (0, m * size - T // n)] + [(0, 0)] * len(rest))
    return jnp.moveaxis(x.reshape(B, n, m, size, *rest), 2, 0).reshape(m, B, n * size, *rest)


def _joined(x: Array, length: int) -> Array:
    """The inverse: [T/(n C), B, n C, ...] -> [B, T, ...]."""
    m, B, _, *rest = x.shape
    n = _parts(length)
    x = jnp.moveaxis(x.reshape(m, B, n, -1, *rest), 0, 2)
    return x.reshape(B, n, -1, *rest)[:, :, : length // n].reshape(B, length, *rest)


def _parts(length: int) -> int:
    n = cut_over("sequence")
    return n if length % n == 0 else 1


def _logits(weight: Any, bias: Array | None, h: Array, cap: float | None) -> Array:
    logits = unembed(weight, h)
    if bias is not None:
        logits = logits + bias.astype(jnp.float32)
    return softcap(logits, cap)


def _chunk_sums(logits: Array, y: Array, m: Array) -> tuple[Array, Array, Array]:
    """Negative log-likelihood of each row [B] and number of correct argmaxes of one chunk, and ∂nll/∂logits."""
    peak = jnp.max(logits, axis=-1)
    exponentials = jnp.exp(logits - peak[..., None])
    total = jnp.sum(exponentials, axis=-1)
    target = jnp.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
    nll = peak + jnp.log(total) - target
    correct = (target >= peak).astype(jnp.float32)
    # Compared with an iota, not scattered: a scatter would be a pass over the logits of its own.
    hot = lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == y[..., None]
    gradient = exponentials * (m / total)[..., None] - jnp.where(hot, m[..., None], 0)
    on = m > 0
    return jnp.sum(jnp.where(on, nll * m, 0), axis=-1), jnp.sum(jnp.where(on, correct * m, 0)), gradient


def _apart(walk: Callable[..., Any], weights: Any, hidden: Array, y: Array, m: Array) -> Any:
    """walk(weights, hidden, y, m) -> (totals, sums of each row [B], arrays [B, T, ...]).

    On a mesh each device walks over its own rows and positions, and totals are added up once, behind all chunks: left
    to itself XLA sends the whole gradient of the table after every chunk.
    """
    B, T = hidden.shape[:2]
    rows = tuple(name for name in BATCH_AXES if cut_over(name) > 1)
    rows = rows if B % math.prod(cut_over(name) for name in rows) == 0 else ()
    positions = ("sequence",) if _parts(T) > 1 else ()
    if not rows + positions:
        return walk(weights, hidden, y, m)

    def alone(*arrays: Any) -> Any:
        totals, of_rows, of_positions = walk(*arrays)
        return lax.psum(totals, rows + positions), lax.psum(of_rows, positions), of_positions

    whole, cut = PartitionSpec(), PartitionSpec(rows or None, positions or None)
    here, out = (whole, cut, cut, cut), (whole, PartitionSpec(rows or None), cut)
    walked = jax.shard_map(alone, in_specs=here, out_specs=out, axis_names={*rows, *positions}, check_vma=False)
    return walked(weights, hidden, y, m)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _walk(weight: Any, bias: Array | None, hidden: Array, y: Array, m: Array, cap: float | None, size: int):
    def walk(weights, hidden, y, m):
        def body(carry, chunk):
            h, targets, mask = chunk
            nll, correct, _ = _chunk_sums(_logits(weights[0], weights[1], h, cap), targets, mask)
            return (carry[0] + nll, carry[1] + correct), None

        pieces = tuple(_chunks(a, size) for a in (hidden, y, m))
        rows, correct = lax.scan(body, _no_sums(len(hidden)), pieces)[0]
        return (jnp.sum(rows), correct), rows, None

    (nll, correct), rows, _ = _apart(walk, (weight, bias), hidden, y, m)
    return nll, correct, rows


def _walk_forward(weight: Any, bias: Any, hidden: Any, y: Any, m: Any, cap: float | None, size: int):
    # A frozen table, or the frozen arrays of a wrapped one, gets no gradient: that is a third of the work here.
    given, structure = jax.tree.flatten((weight, bias), is_leaf=_is_primal)
    learns = [leaf.perturbed for leaf in given]
    hidden, y, m = (leaf.value for leaf in (hidden, y, m))

    def walk(values: list[Array], hidden: Array, y: Array, m: Array):
        def logits_of(trained: list[Array], h: Array) -> Array:
            parts = iter(trained)
            leaves = [next(parts) if on else value for on, value in zip(learns, values, strict=True)]
            weight, bias = jax.tree.unflatten(structure, leaves)
            return _logits(weight, bias, h, cap)

        def body(carry, chunk):
            h, targets, mask = chunk
            logits, pull = jax.vjp(logits_of, trained, h)
            nll, correct, gradient = _chunk_sums(logits, targets, mask)
            dw, dh = pull(gradient)
            total, right, sums = carry
            return (total + nll, right + correct, jax.tree.map(jnp.add, sums, dw)), dh

        trained = [value for on, value in zip(learns, values, strict=True) if on]
        start = (*_no_sums(len(hidden)), jax.tree.map(jnp.zeros_like, trained))
        (rows, correct, dw), dh = lax.scan(body, start, tuple(_chunks(a, size) for a in (hidden, y, m)))
        return (jnp.sum(rows), correct, dw), rows, _joined(dh, hidden.shape[1])

    (nll, correct, dw), rows, dh = _apart(walk, [leaf.value for leaf in given], hidden, y, m)
    return (nll, correct, rows), (dw, dh, _Frozen(structure, tuple(learns)))


def _no_sums(rows: int) -> tuple[Array, Array]:
    return jnp.zeros((rows,), jnp.float32), jnp.zeros((), jnp.float32)


def _is_primal(node: Any) -> bool:
    return hasattr(node, "perturbed")


@struct.dataclass
class _Frozen:
    """How weight and bias are put together, and which of their arrays learn; static."""

    structure: Any = struct.field(pytree_node=False)
    learns: tuple[bool, ...] = struct.field(pytree_node=False)


def _walk_backward(cap: float | None, size: int, saved: Any, cotangent: Any) -> tuple:
    del cap, size
    dw, dh, frozen = saved
    factor = jnp.zeros((), jnp.float32) if isinstance(cotangent[0], SymbolicZero) else cotangent[0]
    scaled = iter([(g * factor).astype(g.dtype) for g in dw])
    leaves = [next(scaled) if on else None for on in frozen.learns]
    weight, bias = jax.tree.unflatten(frozen.structure, leaves)
    return weight, bias, (dh * factor).astype(dh.dtype), None, None


_walk.defvjp(_walk_forward, _walk_backward, symbolic_zeros=True)


def cross_entropy(
    hidden: Array,
    weight: Any,
    targets: Array,
    loss_mask: Array,
    *,
    bias: Array | None = None,
    cap: float | None = None,
    chunk: int = CHUNK,
) -> Sums:
    """-Σ mask · log softmax(hidden weightᵀ + bias)[target], and what it takes to average it.

    Args:
      hidden: [B, T, D], in the compute type.
      weight: output table [V, D], an array or any registered weight with `unembed`.
      targets: [B, T] ids in 0..V-1; what stands at masked positions has no effect.
      loss_mask: [B, T] weights, 0 where a position is not supervised.
      bias: [V].
      cap: soft cap on the logits (Gemma 2).
      chunk: positions whose logits exist at a time (on each device, where a mesh cuts T); memory is B · chunk · V
        floats.
    """
    on = loss_mask > 0
    targets = jnp.where(on, targets, 0)
    # Selected, not multiplied: whatever stands at a masked position, NaN too, adds exactly nothing to any gradient.
    hidden = jnp.where(on[..., None], hidden, 0)
    mask = loss_mask.astype(jnp.float32)
    nll, correct, rows = _walk(weight, bias, hidden, targets, mask, cap, min(chunk, hidden.shape[1]))
    return Sums(nll, jnp.sum(mask), lax.stop_gradient(correct), lax.stop_gradient(rows))


def token_logprobs(
    hidden: Array,
    weight: Any,
    targets: Array,
    *,
    bias: Array | None = None,
    cap: float | None = None,
    chunk: int = CHUNK,
) -> Array:
    """log softmax(hidden weightᵀ + bias)[target] at every position, [B, T] float32, for any later cotangent.

    Chunks are recomputed in the backward pass, so memory stays at one chunk's logits.
    """

    def one(logits: Array, y: Array) -> Array:
        return jnp.take_along_axis(logits, y[..., None], axis=-1)[..., 0] - jax.nn.logsumexp(logits, axis=-1)

    return over_logits(one, hidden, weight, targets, bias=bias, cap=cap, chunk=chunk)


def over_logits(
    fn: Callable[[Array, Array], Any],
    hidden: Array,
    weight: Any,
    targets: Array,
    *,
    bias: Array | None = None,
    cap: float | None = None,
    chunk: int = CHUNK,
) -> Any:
    """fn(logits [B, C, V], targets [B, C]), a tree of [B, C, ...], for all T positions, C = `chunk` of them at a time.

    Chunks are recomputed in the backward pass, so memory stays at one chunk's logits. The rest as in `cross_entropy`.
    """
    return over_projections(fn, [(hidden, weight, bias, cap)], targets, chunk=chunk)


def over_projections(
    fn: Callable[..., Any],
    projections: Sequence[tuple[Array, Any, Array | None, float | None]],
    *arrays: Array,
    chunk: int = CHUNK,
) -> Any:
    """fn(*logits, *arrays), a tree of [B, C, ...], over all T positions, for the logits of several output layers.

    Chunks are recomputed in the backward pass, so memory stays at one chunk's logits of each, and what needs no
    gradient (a teacher's features and table) gets none.

    Args:
      projections: (features [B, T, D], table [V, D], bias [V] or None, soft cap or None) of each; D may differ.
      arrays: [B, T, ...], handed to `fn` in the same chunks. chunk: C.
    """
    hidden = [projection[0] for projection in projections]
    T = hidden[0].shape[1]
    size = min(chunk, T)

    @jax.checkpoint
    def one(piece: Any) -> Any:
        features, rest = piece
        layers = zip(features, projections, strict=True)
        return fn(*(_logits(weight, bias, h, cap) for h, (_, weight, bias, cap) in layers), *rest)

    found = lax.map(one, jax.tree.map(lambda x: _chunks(x, size), (hidden, list(arrays))))
    return jax.tree.map(lambda x: _joined(x, T), found)
