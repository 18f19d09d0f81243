"""Pure functions from logits to logits: the knobs of sampling, one equation each.

B batch · V vocabulary · S history length.

Every filter that keeps "the best tokens until a weight is reached" (top-k, top-p, typical) is one threshold per
row, found exactly by bisection over the ordered bit patterns of float32 (32 passes over the row). No sort of the
vocabulary: sorting 50k numbers costs ten times as much on a CPU. Tokens that tie with the last kept one are all
kept, so the result does not depend on the order of the vocabulary.
"""

import jax
import jax.numpy as jnp

from research.core.types import Array
from research.ops.largest import largest

NEG = -jnp.inf


def _column(value: Array | float) -> Array:
    """A scalar or per-row `[B]` value as something that broadcasts against `[B, V]`."""
    value = jnp.asarray(value)
    return value[..., None] if value.ndim else value


def _ordered(x: Array) -> Array:
    """float32 -> int32 such that the integers have the order of the floats."""
    x = jnp.where(x == 0, 0.0, x).astype(jnp.float32)  # -0.0 and 0.0 are one value
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # the bits of negative floats ascend with their size


def best_until(score: Array, weight: Array, mass: Array | float) -> Array:
    """The smallest set {score >= t} whose weight reaches the mass, as a mask `[B, V]`.

    `mass` is a scalar or `[B]`; a mass that the row never reaches keeps everything.
    """
    order = _ordered(score)
    mass = jnp.broadcast_to(jnp.asarray(mass, weight.dtype), score.shape[:-1])
    info = jnp.iinfo(jnp.int32)
    low = jnp.full(score.shape[:-1], info.min, jnp.int32)
    high = jnp.full(score.shape[:-1], info.max, jnp.int32)

    def halve(_, bounds):
        low, high = bounds
        middle = (low >> 1) + (high >> 1) + (low & high & 1)  # the mean without overflow
        reached = jnp.sum(jnp.where(order >= middle[..., None], weight, 0), axis=-1) >= mass
        return jnp.where(reached, middle, low), jnp.where(reached, high, middle)

    low, _ = jax.lax.fori_loop(0, 32, halve, (low, high))
    return order >= low[..., None]


def _keep(logits: Array, mask: Array, min_keep: int) -> Array:
    if min_keep > 1:
        mask = mask | best_until(logits, jnp.ones(logits.shape, jnp.int32), min_keep)
    return jnp.where(mask, logits, NEG)


def temperature(logits: Array, value: Array | float) -> Array:
    """logits / T; a row with T = 0 stays as it is (its token is the argmax)."""
    value = _column(value)
    return logits / jnp.where(value > 0, value, 1.0)


def top_k(logits: Array, k: Array | int, *, min_keep: int = 1) -> Array:
    """Keep the k largest logits of a row (ties with the last one too); k = 0 keeps all."""
    k = jnp.asarray(k, jnp.int32)
    k = jnp.where(k > 0, jnp.maximum(k, min_keep), logits.shape[-1])
    return jnp.where(best_until(logits, jnp.ones(logits.shape, jnp.int32), k), logits, NEG)


def top_p(logits: Array, p: Array | float, *, min_keep: int = 1) -> Array:
    """Keep the smallest set of most probable tokens with Σ softmax(logits) >= p; p >= 1 keeps all.

    See *The Curious Case of Neural Text Degeneration*, Holtzman et al., https://arxiv.org/abs/1904.09751
    """
    mask = best_until(logits, jax.nn.softmax(logits), p) | (_column(p) >= 1)
    return _keep(logits, mask, min_keep)


def min_p(logits: Array, p: Array | float, *, min_keep: int = 1) -> Array:
    """Keep tokens with softmax(logits) >= p · max softmax(logits).

    See *Turning Up the Heat: Min-p Sampling*, Nguyen et al., https://arxiv.org/abs/2407.01082
    """
    probs = jax.nn.softmax(logits)
    return _keep(logits, probs >= _column(p) * jnp.max(probs, axis=-1, keepdims=True), min_keep)


def typical(logits: Array, mass: Array | float, *, min_keep: int = 1) -> Array:
    """Keep the tokens whose surprise is nearest to the entropy, |-log p - H|, until their mass is reached.

    See *Locally Typical Sampling*, Meister et al., https://arxiv.org/abs/2202.00666
    """
    logp = jax.nn.log_softmax(logits)
    p = jnp.exp(logp)
    entropy = -jnp.sum(jnp.where(p > 0, p * logp, 0.0), axis=-1, keepdims=True)
    nearness = -jnp.abs(-logp - entropy)
    mask = best_until(nearness, p, mass) | (_column(mass) >= 1)
    if min_keep > 1:
        mask = mask | best_until(nearness, jnp.ones(logits.shape, jnp.int32), min_keep)
    return jnp.where(mask, logits, NEG)


def epsilon(logits: Array, cutoff: Array | float, *, min_keep: int = 1) -> Array:
    """Keep tokens with softmax(logits) >= ε, and always the best one.

    See *Truncation Sampling as Language Model Desmoothing*, Hewitt et al., https://arxiv.org/abs/2210.15191
    """
    probs = jax.nn.softmax(logits)
    best = logits >= jnp.max(logits, axis=-1, keepdims=True)
    return _keep(logits, (probs >= _column(cutoff)) | best, min_keep)


def eta(logits: Array, cutoff: Array | float, *, min_keep: int = 1) -> Array:
    """Keep tokens with softmax(logits) >= min(ε, √ε · exp(-H)), and always the best one (same paper as `epsilon`)."""
    logp = jax.nn.log_softmax(logits)
    probs = jnp.exp(logp)
    entropy = -jnp.sum(jnp.where(probs > 0, probs * logp, 0.0), axis=-1, keepdims=True)
    cutoff = _column(cutoff)
    threshold = jnp.minimum(cutoff, jnp.sqrt(cutoff) * jnp.exp(-entropy))
    best = logits >= jnp.max(logits, axis=-1, keepdims=True)
    return _keep(logits, (probs >= threshold) | best, min_keep)


def top_h(logits: Array, share: Array | float, *, candidates: int = 100) -> Array:
    """Keep the most probable tokens while their summed entropy terms -p log p stay within share · H.

    Only the `candidates` most probable tokens are looked at, and p is normalised over them.
    See *Top-H Decoding*, Baghaei Potraghloo et al., https://arxiv.org/abs/2509.02510
    """
    best, _ = largest(logits, min(candidates, logits.shape[-1]))
    logp = jax.nn.log_softmax(best)
    p = jnp.exp(logp)
    terms = jnp.where(p > 0, -p * logp, 0.0)
    inside = jnp.cumsum(terms, axis=-1) <= _column(share) * jnp.sum(terms, axis=-1, keepdims=True)
    inside = inside.at[..., 0].set(True)
    last = jnp.min(jnp.where(inside, best, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= last, logits, NEG)


def seen(ids: Array, valid: Array, vocab: int) -> Array:
    """Mask `[B, V]` of the tokens that occur among the valid ids `[B, S]`."""
    rows = jnp.arange(ids.shape[0], dtype=jnp.int32)[:, None]
    return jnp.zeros((ids.shape[0], vocab), bool).at[rows, jnp.where(valid, ids, vocab)].set(True, mode="drop")


def penalize(logits: Array, mask: Array, penalty: Array | float) -> Array:
    """x -> x / penalty where x > 0 and x · penalty where x < 0, for the tokens of the mask `[B, V]`.

    Over the tokens of an encoder's input with 1 / penalty this is the penalty on leaving the source.
    """
    penalty = _column(penalty)
    return jnp.where(mask, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)


def repetition_penalty(logits: Array, history: Array, length: Array, penalty: Array | float) -> Array:
    """Divide positive logits of tokens already in the history by the penalty and multiply negative ones.

    `history [B, S]` with `length [B]` tokens in use.
    See *CTRL*, Keskar et al., https://arxiv.org/abs/1909.05858
    """
    valid = jnp.arange(history.shape[1]) < length[:, None]
    return penalize(logits, seen(history, valid, logits.shape[-1]), penalty)


def no_repeat_ngram(logits: Array, history: Array, length: Array, n: int) -> Array:
    """Ban every token that would complete an n-gram already in the history `[B, S]` (of `length [B]` tokens)."""
    slots = history.shape[1]
    if slots < n:
        return logits
    windows = slots - n + 1
    complete = jnp.arange(windows) + n - 1 < length[:, None]  # the window's last token lies inside the history
    for i in range(n - 1):
        suffix = jnp.take_along_axis(history, jnp.clip(length[:, None] - n + 1 + i, 0), axis=1)
        complete = complete & (history[:, i : i + windows] == suffix)
    banned = seen(history[:, n - 1 :], complete, logits.shape[-1])
    return jnp.where(banned, NEG, logits)


def suppress(logits: Array, ids: Array, when: Array | None = None) -> Array:
    """Ban the tokens `ids [E]`, in the rows where `when [B]` holds (all rows if not given)."""
    banned = jnp.zeros(logits.shape[-1], bool).at[ids].set(True, mode="drop")
    return jnp.where(banned if when is None else banned & when[:, None], NEG, logits)


def force(logits: Array, ids: Array, when: Array) -> Array:
    """Leave only the tokens `ids [E]` (each with logit 0) in the rows where `when [B]` holds."""
    wanted = jnp.zeros(logits.shape[-1], bool).at[ids].set(True, mode="drop")
    return jnp.where(when[:, None], jnp.where(wanted, 0.0, NEG), logits)
