"""Attention where the mesh cuts positions: keys and values go round a ring of devices, and none ever holds them all.

Every device keeps its queries. In each turn it attends to the keys at hand while they travel on to the next device, and
sums up the softmax as it goes. In the backward pass keys and values go round once more, together with their gradients,
which have come home after the last turn.

B batch · T query length · S key length · n devices in the ring · t = T/n · s = S/n · N query heads · K key/value heads
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from research.core.mesh import cut_over
from research.core.types import Array
from research.ops.dot import product
from research.ops.masks import MASKED, Mask, visible

AXIS = "sequence"
_POSITIONS = PartitionSpec(None, AXIS)
_ROWS = PartitionSpec(None, None, AXIS)


def in_ring(query_length: int, key_length: int) -> bool:
    """Whether the mesh in use cuts positions, and divides both lengths.

    A mesh of this axis alone is a ring of any size: of one device it is what each device of a larger ring does.
    """
    n = cut_over(AXIS)
    ring = n > 1 or jax.sharding.get_abstract_mesh().axis_names == (AXIS,)
    return ring and query_length % n == 0 and key_length % n == 0


class _Keys(NamedTuple):
    """What goes round: keys and values [B, s, K, H], and where and to which segment they belong [B or 1, s]."""

    k: Array
    v: Array
    positions: Array | None
    segments: Array | None


class _Own(NamedTuple):
    """What stays on its device: queries [B, t, N, H], bias [B or 1, N, t, S], their side of the mask [B or 1, t]."""

    q: Array
    bias: Array | None
    positions: Array | None
    segments: Array | None
    horizon: Array | None
    window: Array | None
    place: Array | None


_OWN: Any = _Own._make([_POSITIONS, _ROWS, *[_POSITIONS] * 3, PartitionSpec(), PartitionSpec(AXIS)])
_KEYS: Any = _Keys._make([_POSITIONS] * 4)


def ring_attention(
    q: Array, k: Array, v: Array, mask: Mask, *, scale: float, bias: Array | None, window: Array | int | None
) -> Array:
    """softmax(scale · q kᵀ + bias, over visible keys) v, in the type of q, with positions cut over the mesh in use.

    See *Ring Attention with Blockwise Transformers*, Liu et al., https://arxiv.org/abs/2310.01889.

    Args:
      q: [B, T, N, H]. k, v: [B, S, K, H]. bias: [B or 1, N, T, S]. mask, window: as in `ops.attention`.
    """
    queries, keys = mask.query_positions, mask.key_positions
    if not mask.plain or mask.causal or window is not None:
        # Spelt out, since a part does not begin at 0.
        queries = jnp.arange(q.shape[1])[None] if queries is None else queries
        keys = jnp.arange(k.shape[1])[None] if keys is None else keys
    window = None if window is None else jnp.asarray(window, jnp.int32)
    own = _Own(q, bias, queries, mask.query_segments, mask.horizon, window, jnp.arange(cut_over(AXIS)))
    return _ring(own, _Keys(k, v, keys, mask.key_segments), mask.causal, scale)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _ring(own: _Own, keys: _Keys, causal: bool, scale: float) -> Array:
    return _forward(own, keys, causal, scale)[0]


def _on_ring(body: Callable[..., Any], specs: tuple[Any, ...], out: Any) -> Callable[..., Any]:
    return jax.shard_map(body, in_specs=specs, out_specs=out, axis_names={AXIS}, check_vma=False)


def _next(tree: Any) -> Any:
    """Every array handed on to the next device."""
    n = lax.axis_size(AXIS)
    return jax.tree.map(lambda x: lax.ppermute(x, AXIS, [(i, (i + 1) % n) for i in range(n)]), tree)


def _grouped(x: Array, kv_heads: int) -> Array:
    """Rows of all heads that share a key head, one behind the other: [B, t, N, H] -> [B, K, G·t, H]."""
    B, t, _, H = x.shape
    return x.reshape(B, t, kv_heads, -1, H).transpose(0, 2, 3, 1, 4).reshape(B, kv_heads, -1, H)


def _ungrouped(x: Array, t: int) -> Array:
    """The inverse: [B, K, G·t, H] -> [B, t, N, H]."""
    B, K, _, H = x.shape
    return x.reshape(B, K, -1, t, H).transpose(0, 3, 1, 2, 4).reshape(B, t, -1, H)


def _batched(a: Array, b: Array, contract_a: int, contract_b: int) -> Array:
    return product(a, b, (((contract_a,), (contract_b,)), ((0, 1), (0, 1))))


def _scores(
    own: _Own, keys: _Keys, rows: Array, turn: Array, causal: bool, scale: float
) -> tuple[Array, Array | None, Array]:
    """Masked scores [B, N, t, s] of one turn in float32, who sees whom, and where these keys begin among all."""
    t, s = own.q.shape[1], keys.k.shape[1]
    scores = _batched(rows, keys.k.transpose(0, 2, 1, 3), 3, 3).reshape(-1, own.q.shape[2], t, s) * scale
    begin = (cast(Array, own.place)[0] - turn) % lax.axis_size(AXIS) * s
    if own.bias is not None:
        scores = scores + lax.dynamic_slice_in_dim(own.bias, begin, s, axis=3)
    mask = Mask(causal, own.positions, keys.positions, own.segments, keys.segments, own.horizon)
    seen = visible(mask, t, s, own.window)
    if seen is not None:
        seen = seen[:, None]
        scores = jnp.where(seen, scores, MASKED)
    return scores, seen, begin


def _forward(own: _Own, keys: _Keys, causal: bool, scale: float) -> tuple[Array, tuple[Any, ...]]:
    def body(own: _Own, keys: _Keys) -> tuple[Array, Array, Array]:
        (B, t, N, H), K = own.q.shape, keys.k.shape[2]
        rows = _grouped(own.q, K)

        def attend(turn: Array | int, keys: _Keys, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            top, total, mixed = sums
            s, _, _ = _scores(own, keys, rows, jnp.asarray(turn), causal, scale)
            higher = jnp.maximum(top, jnp.max(s, axis=-1, keepdims=True))
            p, shrink = jnp.exp(s - higher), jnp.exp(top - higher)
            more = _batched(p.astype(keys.v.dtype).reshape(B, K, -1, p.shape[-1]), keys.v.transpose(0, 2, 1, 3), 3, 2)
            mixed = mixed * shrink + more.reshape(B, N, t, H)
            return higher, total * shrink + jnp.sum(p, axis=-1, keepdims=True), mixed

        def turn(i: Array, carry: tuple[_Keys, tuple[Array, ...]]) -> tuple[_Keys, tuple[Array, ...]]:
            return _next(carry[0]), attend(i, *carry)

        start = jnp.full((B, N, t, 1), -jnp.inf), jnp.zeros((B, N, t, 1)), jnp.zeros((B, N, t, H))
        last = lax.axis_size(AXIS) - 1
        keys, sums = lax.fori_loop(0, last, turn, (keys, start))
        top, total, mixed = attend(last, keys, sums)
        return (mixed / total).transpose(0, 2, 1, 3).astype(own.q.dtype), top, total

    out, top, total = _on_ring(body, (_OWN, _KEYS), (_POSITIONS, _ROWS, _ROWS))(own, keys)
    return out, (own, keys, out, top, total)


def _backward(causal: bool, scale: float, saved: tuple[Any, ...], g: Array) -> tuple[_Own, _Keys]:
    bias = saved[0].bias

    def body(own: _Own, keys: _Keys, out: Array, top: Array, total: Array, g: Array) -> tuple[Any, ...]:
        (B, t, N, _), K = own.q.shape, keys.k.shape[2]
        rows, upper = _grouped(own.q, K), _grouped(g.astype(own.q.dtype), K)
        delta = jnp.sum(g.astype(jnp.float32) * out.astype(jnp.float32), axis=-1).transpose(0, 2, 1)[..., None]
        heads = lambda x: x.reshape(B, N, t, -1)  # noqa: E731
        flat = lambda x: x.astype(own.q.dtype).reshape(B, K, -1, x.shape[-1])  # noqa: E731

        def attend(turn: Array | int, keys: _Keys, sums: tuple[Any, ...]) -> tuple[Any, ...]:
            dq, dk, dv, dbias = sums
            scores, seen, begin = _scores(own, keys, rows, jnp.asarray(turn), causal, scale)
            p = jnp.exp(scores - top) / total
            dp = heads(_batched(upper, keys.v.transpose(0, 2, 1, 3), 3, 3))
            ds = p * (dp - delta)
            ds = ds if seen is None else jnp.where(seen, ds, 0)
            if own.bias is not None:
                mine = jnp.sum(ds, axis=0, keepdims=True) if own.bias.shape[0] == 1 else ds
                dbias = lax.dynamic_update_slice_in_dim(dbias, mine, begin, axis=3)
            small = flat(ds * scale)
            dq = dq + _batched(small, keys.k.transpose(0, 2, 1, 3), 3, 2)
            # [B, K, s, H]: gradients travel with the keys, summed up in float32.
            return dq, dk + _batched(small, rows, 2, 2), dv + _batched(flat(p), upper, 2, 2), dbias

        def turn(i: Array, carry: tuple[_Keys, tuple[Any, ...]]) -> tuple[_Keys, tuple[Any, ...]]:
            dq, dk, dv, dbias = attend(i, *carry)
            return _next(carry[0]), (dq, *_next((dk, dv)), dbias)

        zeros = jnp.zeros_like(keys.k.transpose(0, 2, 1, 3), jnp.float32)
        start = jnp.zeros(rows.shape), zeros, zeros, None if own.bias is None else jnp.zeros_like(own.bias)
        last = lax.axis_size(AXIS) - 1
        keys, sums = lax.fori_loop(0, last, turn, (keys, start))
        dq, dk, dv, dbias = attend(last, keys, sums)
        dk, dv = (x.transpose(0, 2, 1, 3) for x in _next((dk, dv)))
        return _ungrouped(dq, t).astype(own.q.dtype), dk.astype(keys.k.dtype), dv.astype(keys.v.dtype), dbias

    specs = _OWN, _KEYS, _POSITIONS, _ROWS, _ROWS, _POSITIONS
    out = *[_POSITIONS] * 3, (None if bias is None else _ROWS)
    dq, dk, dv, dbias = _on_ring(body, specs, out)(*saved, g)
    return _Own(dq, dbias, None, None, None, None, None), _Keys(dk, dv, None, None)


_ring.defvjp(_forward, _backward)
