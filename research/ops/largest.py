"""The k largest entries of long rows without sorting them whole.

... leading axes · V entries of a row · C entries of a block
"""

import jax
import jax.numpy as jnp

from research.core.types import Array

BLOCK = 128


def largest(x: Array, k: int) -> tuple[Array, Array]:
    """The k largest entries and their indices, in descending order, equal ones by index: [..., V] -> [..., k] twice.

    The same as `jax.lax.top_k`, which sorts all V on a CPU. The k largest lie within the k blocks of C entries that
    have the largest maxima (were one elsewhere, k entries would stand before it), so only k · C are sorted.
    """
    V = x.shape[-1]
    n = -(-V // BLOCK)
    if jax.default_backend() != "cpu" or 4 * (k * BLOCK + n) > V:
        values, ids = jax.lax.top_k(x, k)
        return values, ids
    lead = x.shape[:-1]
    padded = jnp.pad(x, [(0, 0)] * len(lead) + [(0, n * BLOCK - V)], constant_values=-jnp.inf)
    blocks = padded.reshape(*lead, n, BLOCK)
    # In the order of the row, so that among equal entries the first one comes first again.
    chosen = jnp.sort(jax.lax.top_k(jnp.max(blocks, axis=-1), k)[1], axis=-1)
    candidates = jnp.take_along_axis(blocks, chosen[..., None], axis=-2).reshape(*lead, k * BLOCK)
    values, place = jax.lax.top_k(candidates, k)
    block = jnp.take_along_axis(chosen, place // BLOCK, axis=-1)
    return values, block * BLOCK + place % BLOCK
