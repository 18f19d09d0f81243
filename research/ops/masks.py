"""Who sees whom, as a function of positions and segments.

One rule covers causal, bidirectional, prefix, sliding-window, packed and padded attention, cached or not: a query
sees a key when the key's slot is filled, both belong to the same segment, the key's position is at most the query's
horizon (its own position in a causal model, the end of the prefix inside a prefix, no bound without causality) and
less than `window` positions behind.

B batch · T query length · S key length
"""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Bool, Int

from research.core.types import Array

# Finite, so that a query that sees nothing (padding) gives a mean of values and no NaN, in bf16 too.
MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)
# The segment of keys that every query sees, whatever its own: a trained prefix.
EVERYONE = -1


@struct.dataclass
class Mask:
    """Positions and segments of queries and keys; a field that is None says that nothing depends on it.

    Attributes:
      causal: whether a query is bounded by its own position (static).
      ordered: queries and keys are the same tokens, and positions grow along a row within a segment, so that no token
        sees one behind it in its row (static); lets `ops.attention` leave those out.
      query_positions: [B, T]; None: 0 .. T-1.
      key_positions: [B, S], -1 marks an empty slot; None: 0 .. S-1.
      query_segments: [B, T], 0 is padding; None with `key_segments`: one segment.
      key_segments: [B, S]; `EVERYONE` marks keys that belong to all segments.
      horizon: [B, T], the last position that each query may see; None: its own position if causal, else no bound.
    """

    causal: bool = struct.field(pytree_node=False, default=False)
    query_positions: Array | None = None
    key_positions: Array | None = None
    query_segments: Array | None = None
    key_segments: Array | None = None
    horizon: Array | None = None
    ordered: bool = struct.field(pytree_node=False, default=False)

    @property
    def keys(self) -> int | None:
        """How many keys it speaks of; None: of as many as there are."""
        arrays = (self.key_positions, self.key_segments)
        return next((array.shape[1] for array in arrays if array is not None), None)

    @property
    def plain(self) -> bool:
        """True where neither positions nor segments are given: all tokens in one run from position 0."""
        arrays = (self.query_positions, self.key_positions, self.query_segments, self.key_segments, self.horizon)
        return all(array is None for array in arrays)


def visible(
    mask: Mask, query_length: int, key_length: int, window: Int[Array, ""] | int | None = None
) -> Bool[Array, "b {query_length} {key_length}"] | None:
    """The boolean mask [B or 1, T, S] that `mask` stands for; None where every query sees every key."""
    if mask.plain and not mask.causal and window is None:
        return None
    q = jnp.arange(query_length)[None] if mask.query_positions is None else mask.query_positions
    k = jnp.arange(key_length)[None] if mask.key_positions is None else mask.key_positions
    q, k = q[:, :, None], k[:, None, :]
    seen = jnp.ones((1, query_length, key_length), bool) if mask.key_positions is None else k >= 0
    if mask.horizon is not None:
        seen = seen & (k <= mask.horizon[:, :, None])
    elif mask.causal:
        seen = seen & (k <= q)
    if window is not None:
        seen = seen & (q - k < window)
    if mask.query_segments is not None and mask.key_segments is not None:
        theirs = mask.key_segments[:, None, :]
        seen = seen & ((mask.query_segments[:, :, None] == theirs) | (theirs == EVERYONE))
    return jnp.broadcast_to(seen, (seen.shape[0], query_length, key_length))
