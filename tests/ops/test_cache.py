"""The cache's bookkeeping: padding, ragged rows, overflow."""

import jax.numpy as jnp
import numpy as np

from research.ops import cache as caches


def put(cache, tokens):
    """Writes rows of 'tokens' whose value is their own key; 0 is padding."""
    segments = jnp.asarray(np.array(tokens) != 0, jnp.int32)
    positions = caches.next_positions(cache, segments)
    values = jnp.asarray(tokens, jnp.float32)[:, :, None, None]
    where = caches.slots(cache, segments.shape[1])
    layers = tuple(caches.write(kv, values, values, where) for kv in cache.layers)
    return caches.advance(cache, positions, segments).replace(layers=layers), positions


def held(cache, row):
    """(position, value) of every filled slot."""
    return sorted(
        (int(p), float(cache.layers[0].k[row, s, 0, 0])) for s, p in enumerate(cache.positions[row]) if int(p) >= 0
    )


def test_right_padding_is_overwritten_and_left_padding_stays_empty():
    cache = caches.empty(2, 8, 1, 1, 1, jnp.dtype("float32"))
    cache, positions = put(cache, [[11, 12, 0, 0], [0, 0, 21, 22]])
    assert np.asarray(cache.next).tolist() == [2, 4]
    assert np.asarray(positions)[1, 2:].tolist() == [0, 1]
    cache, _ = put(cache, [[13], [23]])
    cache, _ = put(cache, [[14], [24]])
    assert held(cache, 0) == [(0, 11), (1, 12), (2, 13), (3, 14)]
    assert held(cache, 1) == [(0, 21), (1, 22), (2, 23), (3, 24)]


def test_a_row_of_padding_does_not_move():
    cache = caches.empty(2, 4, 1, 1, 1, jnp.dtype("float32"))
    cache, _ = put(cache, [[1], [0]])
    cache, positions = put(cache, [[2], [5]])
    assert held(cache, 0) == [(0, 1), (1, 2)] and held(cache, 1) == [(0, 5)]
    assert np.asarray(positions).tolist() == [[1], [0]]


def test_slots_past_the_end_are_dropped_and_nothing_else_moves():
    cache = caches.empty(1, 2, 1, 1, 1, jnp.dtype("float32"))
    cache, _ = put(cache, [[1, 2]])
    cache, _ = put(cache, [[3]])
    assert held(cache, 0) == [(0, 1), (1, 2)]
