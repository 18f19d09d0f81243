"""The key/value cache: an argument and a return value, one pair of arrays per layer and shared bookkeeping.

B batch · S slots · K key/value heads · H head size
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Float, Int

from research.core.types import Array
from research.ops.int8 import row_scales
from research.ops.int8 import to_int8 as int8_codes
from research.ops.masks import EVERYONE


@struct.dataclass
class KV:
    """Keys and values of one layer, [B, S, K, H] each; in int8 with a scale for each slot and head [B, S, K]."""

    k: Array
    v: Array
    k_scale: Array | None = None
    v_scale: Array | None = None


@struct.dataclass
class Cache:
    """What has been attended to so far.

    Attributes:
      layers: one `KV` per layer.
      positions: [B, S], the position held by each slot, -1 where it is empty.
      segments: [B, S], the segment held by each slot, 0 where it is empty.
      next: [B], the slot that each row writes next.
      cross: one fixed `KV` per layer over the encoder's output; None without an encoder.
      cross_segments: [B, S'], segments of the encoder's output, 0 is padding.
      prefix: how many slots in front hold a trained prefix (static); a token's position is its slot's.
      front: how many slots in front attention reads (static), where the others are known to be empty; None: all.
    """

    layers: tuple[KV, ...]
    positions: Array
    segments: Array
    next: Array
    cross: tuple[KV, ...] | None = None
    cross_segments: Array | None = None
    prefix: int = struct.field(pytree_node=False, default=0)
    front: int | None = struct.field(pytree_node=False, default=None)

    @property
    def length(self) -> int:
        """How many slots there are."""
        return self.positions.shape[1]


def empty(batch: int, length: int, layers: int, kv_heads: int, head_dim: int, dtype: Any) -> Cache:
    """A cache of `length` empty slots."""
    kv = tuple(KV(*(jnp.zeros((batch, length, kv_heads, head_dim), dtype) for _ in "kv")) for _ in range(layers))
    blank = jnp.zeros((batch, length), jnp.int32)
    return Cache(layers=kv, positions=blank - 1, segments=blank, next=jnp.zeros((batch,), jnp.int32))


def begin(cache: Cache, prefixes: tuple[KV, ...]) -> Cache:
    """An empty cache that holds a trained prefix, keys and values [P, K, H] of each layer, in its first slots."""
    length = prefixes[0].k.shape[-3]
    fill = lambda old, new: old.at[:, :length].set(new.astype(old.dtype))  # noqa: E731
    layers = tuple(KV(fill(kv.k, p.k), fill(kv.v, p.v)) for kv, p in zip(cache.layers, prefixes, strict=True))
    return replace(
        cache,
        layers=layers,
        positions=fill(cache.positions, jnp.arange(length)),
        segments=fill(cache.segments, jnp.array(EVERYONE)),
        next=cache.next + length,
        prefix=length,
    )


def with_prefix(kv: KV, prefix: KV) -> KV:
    """Keys and values [B, S, K, H] behind a trained prefix [P, K, H] that all rows share."""
    join = lambda new, old: jnp.concatenate(  # noqa: E731
        [jnp.broadcast_to(old.astype(new.dtype), (new.shape[0], *old.shape)), new], axis=1
    )
    return KV(join(kv.k, prefix.k), join(kv.v, prefix.v))


def to_int8(cache: Cache) -> Cache:
    """The cache with keys and values rounded to int8; whatever is written to it later is rounded too."""

    def rounded(kv: KV) -> KV:
        (k, k_scale), (v, v_scale) = _rounded(kv.k), _rounded(kv.v)
        return KV(k, v, k_scale, v_scale)

    cross = None if cache.cross is None else tuple(map(rounded, cache.cross))
    return replace(cache, layers=tuple(map(rounded, cache.layers)), cross=cross)


def _rounded(x: Array) -> tuple[Array, Array]:
    scale = row_scales(x)
    return int8_codes(x, scale), scale[..., 0]


def read(kv: KV, dtype: Any, keys: int | None = None) -> tuple[Array, Array]:
    """The first `keys` of one layer's keys and values, or all, in the type that attention computes in."""
    kv = jax.tree.map(lambda x: x[:, :keys], kv)
    if kv.k_scale is None or kv.v_scale is None:
        return kv.k.astype(dtype), kv.v.astype(dtype)
    pairs = ((kv.k, kv.k_scale), (kv.v, kv.v_scale))
    k, v = ((x.astype(jnp.float32) * scale[..., None]).astype(dtype) for x, scale in pairs)
    return k, v


def _put(old: Array, new: Array, slots: Array) -> Array:
    rows = jnp.arange(old.shape[0])[:, None]
    return old.at[rows, slots].set(new.astype(old.dtype), mode="drop", unique_indices=True)


def slots(cache: Cache, length: int) -> Int[Array, "B {length}"]:
    """The slots [B, T] that the next `length` tokens of each row go to."""
    return cache.next[:, None] + jnp.arange(length)[None]


def write(kv: KV, k: Float[Array, "B T K H"], v: Float[Array, "B T K H"], where: Int[Array, "B T"]) -> KV:
    """One layer's new keys and values [B, T, K, H] put into slots [B, T]; slots past the end are dropped."""
    if kv.k_scale is None or kv.v_scale is None:
        return KV(_put(kv.k, k, where), _put(kv.v, v, where))
    (k, k_scale), (v, v_scale) = _rounded(k), _rounded(v)
    new = KV(k, v, k_scale, v_scale)
    return jax.tree.map(lambda old, fresh: _put(old, fresh, where), kv, new)


def advance(cache: Cache, positions: Int[Array, "B T"], segments: Int[Array, "B T"]) -> Cache:
    """The bookkeeping after T tokens with these positions and segments [B, T].

    Padding (segment 0) leaves its slot empty. `next` moves behind the last real token, so right padding is
    overwritten by the next write, and left padding stays an empty slot.
    """
    length = positions.shape[1]
    where = slots(cache, length)
    real = segments > 0
    moved = jnp.max(jnp.where(real, jnp.arange(1, length + 1)[None], 0), axis=1)
    return replace(
        cache,
        positions=_put(cache.positions, jnp.where(real, positions, -1), where),
        segments=_put(cache.segments, segments, where),
        next=cache.next + moved.astype(jnp.int32),
    )


def next_positions(cache: Cache, segments: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Positions [B, T] of new tokens that go on counting where each row stopped."""
    held = jnp.max(cache.positions, axis=1, keepdims=True) + 1
    return held + jnp.maximum(jnp.cumsum(segments > 0, axis=1, dtype=jnp.int32) - 1, 0)
