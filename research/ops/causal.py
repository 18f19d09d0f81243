"""Causal attention in blocks of queries: keys behind a block are never touched, and no [T, T] array outlives its block.

The forward pass keeps the output and one logarithm per query; the backward pass makes each block's weights again from
them. On a CPU this halves the products and keeps hundreds of megabytes out of memory (LOG.md has the figures).

B batch · T length · N query heads · K key/value heads · G = N/K · H head size
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from research.core.types import Array
from research.ops.dot import product, swap_last
from research.ops.masks import MASKED

BLOCK = 128


def _rows(x: Array, start: int, stop: int, kv_heads: int) -> Array:
    """Queries start..stop of all heads that share a key head, one behind the other: [B, N, T, H] -> [B, K, G·t, H]."""
    B, _, _, H = x.shape
    return x[:, :, start:stop].reshape(B, kv_heads, -1, H)


def _heads(x: Array, heads: int) -> Array:
    """The inverse for anything per row: [B, K, G·t, ...] -> [B, N, t, ...]."""
    return x.reshape(x.shape[0], heads, -1, *x.shape[3:])


def _batched(a: Array, b: Array, contract_a: int, contract_b: int) -> Array:
    return product(a, b, (((contract_a,), (contract_b,)), ((0, 1), (0, 1))))


def _scores(q: Array, k: Array, segments: Array | None, start: int, stop: int, scale: float) -> Array:
    """Masked scores of one block against the keys in front of it: [B, N, t, stop] in float32."""
    s = _heads(_batched(_rows(q, start, stop, k.shape[1]), k[:, :, :stop], 3, 3), q.shape[1]) * scale
    seen = (jnp.arange(start, stop)[:, None] >= jnp.arange(stop)[None])[None]
    if segments is not None:
        seen = seen & (segments[:, start:stop, None] == segments[:, None, :stop])
    return jnp.where(seen[:, None], s, MASKED)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def causal_attention(q: Array, k: Array, v: Array, segments: Array | None, scale: float) -> Array:
    """softmax(scale · q kᵀ, over earlier keys of the same segment) v, in the type of q.

    See *FlashAttention*, Dao et al., https://arxiv.org/abs/2205.14135, for the backward pass.

    Args:
      q: [B, N, T, H]. k, v: [B, K, T, H].
      segments: [B, T]; None: one segment.
    """
    return _forward(q, k, v, segments, scale)[0]


def _forward(q: Array, k: Array, v: Array, segments: Array | None, scale: float) -> tuple[Array, tuple]:
    N, T = q.shape[1], q.shape[2]
    outputs, logs = [], []
    for start in range(0, T, BLOCK):
        stop = min(start + BLOCK, T)
        s = _scores(q, k, segments, start, stop, scale)
        top = jnp.max(s, axis=-1, keepdims=True)
        p = jnp.exp(s - top)
        total = jnp.sum(p, axis=-1, keepdims=True)
        mixed = _batched(p.astype(v.dtype).reshape(*v.shape[:2], -1, stop), v[:, :, :stop], 3, 2)
        outputs.append((_heads(mixed, N) / total).astype(q.dtype))
        logs.append(top + jnp.log(total))
    out = jnp.concatenate(outputs, axis=2)
    return out, (q, k, v, segments, out, jnp.concatenate(logs, axis=2))


def _backward(scale: float, saved: tuple, g: Array) -> tuple[Array, Array, Array, None]:
    q, k, v, segments, out, logs = saved
    B, N, T, H = q.shape
    K = k.shape[1]
    g = g.astype(q.dtype)
    delta = jnp.sum(g.astype(jnp.float32) * out.astype(jnp.float32), axis=-1, keepdims=True)
    # Transposed, [B, K, H, T]: a block's share is then a product whose left operand is the small one.
    dk, dv = (jnp.zeros((B, K, H, T), jnp.float32) for _ in "kv")
    dq = []
    for start in range(0, T, BLOCK):
        stop = min(start + BLOCK, T)
        p = jnp.exp(_scores(q, k, segments, start, stop, scale) - logs[:, :, start:stop])
        rows, upper = _rows(q, start, stop, K), _rows(g, start, stop, K)
        dp = _heads(_batched(upper, v[:, :, :stop], 3, 3), N)
        ds = (p * (dp - delta[:, :, start:stop]) * scale).astype(q.dtype).reshape(B, K, -1, stop)
        flat = p.astype(q.dtype).reshape(B, K, -1, stop)
        dq.append(_heads(_batched(ds, k[:, :, :stop], 3, 2), N).astype(q.dtype))
        dk = dk.at[..., :stop].add(_batched(swap_last(rows), ds, 3, 2))
        dv = dv.at[..., :stop].add(_batched(swap_last(upper), flat, 3, 2))
    return (
        jnp.concatenate(dq, axis=2),
        jnp.swapaxes(lax.optimization_barrier(dk), 2, 3).astype(k.dtype),
        jnp.swapaxes(lax.optimization_barrier(dv), 2, 3).astype(v.dtype),
        None,
    )


causal_attention.defvjp(_forward, _backward)
