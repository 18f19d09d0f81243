"""The largest entries of a row, against a full sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.largest import largest


@pytest.mark.parametrize("vocab", [5, 128, 1001, 50_257])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_equals_a_full_sort_with_ties_in_the_order_of_the_row(vocab, k):
    rng = np.random.default_rng(vocab + k)
    rows = rng.normal(size=(3, vocab)).astype(np.float32)
    rows[1] = rng.integers(0, 3, vocab)  # nearly everything is a tie
    rows[2, rng.random(vocab) < 0.9] = -np.inf
    values, ids = jax.jit(largest, static_argnums=1)(rows, k)
    order = np.argsort(-rows, axis=-1, kind="stable")[:, :k]
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(values, np.take_along_axis(rows, order, axis=-1))


def test_a_row_without_a_finite_entry_gives_the_first_ids():
    values, ids = largest(jnp.full((2, 3, 4000), -jnp.inf), 2)
    assert values.shape == ids.shape == (2, 3, 2)
    np.testing.assert_array_equal(ids, np.broadcast_to([0, 1], (2, 3, 2)))
