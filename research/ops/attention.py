"""Attention: softmax(scale · q kᵀ + bias) v over visible keys, for any number of key/value heads.

B batch · T query length · S key length · N query heads · K key/value heads · G = N/K · H head size
"""

import jax
import jax.numpy as jnp

from research.core.types import Array
from research.ops.causal import BLOCK, causal_attention
from research.ops.dot import batched_scores, batched_values
from research.ops.masks import MASKED, Mask, visible
from research.ops.ring import in_ring, ring_attention


def softcap(x: Array, cap: float | None) -> Array:
    """cap · tanh(x / cap); the identity where cap is None."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Mask,
    *,
    scale: float,
    bias: Array | None = None,
    cap: float | None = None,
    window: Array | int | None = None,
    dropout: float = 0.0,
    rng: Array | None = None,
    weights: bool = False,
) -> tuple[Array, Array | None]:
    """Multi-head attention with N query heads over K shared key/value heads.

    Args:
      q: [B, T, N, H].
      k: [B, S, K, H], N a multiple of K (K = N multi-head, K = 1 multi-query, between: grouped).
      v: [B, S, K, H].
      mask: who sees whom.
      scale: factor on the scores, usually H^-½.
      bias: added to the scores, [B or 1, N, T, S] (ALiBi, T5).
      cap: soft cap on the scores (Gemma 2).
      window: how many positions back a query sees, itself included.
      dropout: rate on the attention weights, applied when `rng` is given.
      weights: also return the attention weights; takes the unfused path.

    Returns:
      The output [B, T, N, H] in the type of q, and the weights [B, N, T, S] in float32 or None.
    """
    rate = dropout if rng is not None else 0.0
    if in_ring(q.shape[1], k.shape[1]):
        # Elsewhere XLA gathers keys and values. The fused kernels do not take positions that are cut.
        if cap is None and rate == 0 and not weights:
            return ring_attention(q, k, v, mask, scale=scale, bias=bias, window=window), None
        return _plain(q, k, v, mask, scale, bias, cap, window, dropout, rng, weights)
    if _in_blocks(q, k, mask, window, bias, cap, rate, weights):
        heads_first = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        return causal_attention(*heads_first, mask.query_segments, scale).transpose(0, 2, 1, 3), None
    if _fused(q, cap=cap, dropout=rate, weights=weights):
        return _cudnn(q, k, v, mask, scale=scale, bias=bias, window=window), None
    return _plain(q, k, v, mask, scale, bias, cap, window, dropout, rng, weights)


def _in_blocks(
    q: Array,
    k: Array,
    mask: Mask,
    window: Array | int | None,
    bias: Array | None,
    cap: float | None,
    dropout: float,
    weights: bool,
) -> bool:
    """Whether the CPU's block-wise causal form computes this call."""
    simple = window is None and bias is None and cap is None and dropout == 0 and not weights
    ordered = mask.causal and mask.horizon is None and (mask.plain or mask.ordered)
    return jax.default_backend() == "cpu" and simple and ordered and BLOCK < q.shape[1] == k.shape[1]


def _plain(
    q: Array,
    k: Array,
    v: Array,
    mask: Mask,
    scale: float,
    bias: Array | None,
    cap: float | None,
    window: Array | int | None,
    dropout: float,
    rng: Array | None,
    weights: bool,
) -> tuple[Array, Array | None]:
    B, T, N, H = q.shape
    S, K = k.shape[1], k.shape[2]
    grouped = q.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B, K, (N // K) * T, H)
    scores = batched_scores(grouped, k.transpose(0, 2, 1, 3)).reshape(B, N, T, S)
    scores = softcap(scores * scale, cap)
    if bias is not None:
        scores = scores + bias
    seen = visible(mask, T, S, window)
    if seen is not None:
        scores = jnp.where(seen[:, None], scores, MASKED)
    p = jax.nn.softmax(scores, axis=-1)
    probabilities = p
    if rng is not None and dropout > 0:
        keep = jax.random.bernoulli(rng, 1 - dropout, p.shape)
        probabilities = jnp.where(keep, p / (1 - dropout), 0)
    mixed = probabilities.reshape(B, K, (N // K) * T, S)
    out = batched_values(mixed, v.transpose(0, 2, 1, 3)).reshape(B, K, N // K, T, H)
    return out.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H), (p if weights else None)


def _fused(q: Array, *, cap: float | None, dropout: float, weights: bool) -> bool:
    """Whether the backend's fused kernel computes this call."""
    low = q.dtype in (jnp.bfloat16, jnp.float16)
    return jax.default_backend() == "gpu" and low and cap is None and dropout == 0 and not weights


def _cudnn(
    q: Array, k: Array, v: Array, mask: Mask, *, scale: float, bias: Array | None, window: Array | int | None
) -> Array:
    T, S = q.shape[1], k.shape[1]
    if mask.plain and mask.causal and window is None:
        return jax.nn.dot_product_attention(q, k, v, bias, scale=scale, is_causal=True, implementation="cudnn")
    seen = visible(mask, T, S, window)
    seen = None if seen is None else seen[:, None]
    return jax.nn.dot_product_attention(q, k, v, bias, seen, scale=scale, implementation="cudnn")
