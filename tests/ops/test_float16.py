"""Float16 at the edge of its range: what is reduced, is reduced in float32, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.attention import attention
from research.ops.causal import causal_attention
from research.ops.cross_entropy import cross_entropy
from research.ops.dot import dot
from research.ops.masks import Mask
from research.ops.norms import layer_norm, rms_norm
from research.ops.positions import Rope, rope_tables, rotate

HALF = jnp.float16


def normal(key, *shape):
    return jax.random.normal(jax.random.key(key), shape).astype(HALF)


def near(program, *inputs, tolerance=5e-3):
    """Output and gradients in float16 are those of the same numbers in float32, up to the rounding."""
    wide = tuple(x.astype(jnp.float32) for x in inputs)
    got, pull = jax.vjp(program, *inputs)
    want, pull_wide = jax.vjp(program, *wide)
    cotangent = normal(9, *want.shape)
    pairs = [(got, want), *zip(pull(cotangent.astype(got.dtype)), pull_wide(cotangent.astype(want.dtype)), strict=True)]
    for low, high in pairs:
        low, high = (np.asarray(x, np.float64) for x in (low, high))
        assert np.isfinite(low).all() and np.linalg.norm(low - high) <= tolerance * np.linalg.norm(high)
    return got


@pytest.mark.parametrize("norm", [rms_norm, layer_norm])
def test_squares_of_a_norm_may_leave_the_range(norm):
    x = normal(0, 3, 64) * 400  # 400² is not a float16, and less so the sum of 64 of them
    assert not np.isfinite(jnp.square(x).sum())
    assert near(lambda x: norm(x, jnp.ones(64)), x).dtype == HALF


def test_scores_may_leave_the_range():
    q, k, v = (normal(i, 2, 5, 2, 32) * (200 if i < 2 else 1) for i in range(3))
    assert not np.isfinite(jnp.einsum("btnh,bsnh->bnts", q, k)).all()
    out = near(lambda q, k, v: attention(q, k, v, Mask(), scale=1e-4)[0], q, k, v, tolerance=1e-2)
    assert out.dtype == HALF


def test_causal_blocks_take_large_scores():
    q, k, v = (normal(i, 1, 2, 200, 32) * (200 if i < 2 else 1) for i in range(3))
    assert near(lambda q, k, v: causal_attention(q, k, v, None, 1e-4), q, k, v, tolerance=1e-2).dtype == HALF


def test_a_sum_over_many_rows_may_pass_the_range_on_its_way():
    # Partial sums reach 120,000 before the second half takes them back: what is accumulated in float16 is lost.
    x = jnp.concatenate([jnp.full((1, 600), 200, HALF), jnp.full((1, 600), -199, HALF)], axis=1)
    np.testing.assert_array_equal(dot(x, jnp.ones((1200, 3), HALF)), jnp.full((1, 3), 600, HALF))
    near(lambda x, w: dot(x, w), normal(1, 2, 7, 48), normal(2, 48, 5))


@pytest.mark.parametrize("chunk", [3, 8])
def test_logits_may_leave_the_range(chunk):
    hidden, table = normal(0, 2, 8, 32) * 300, normal(1, 11, 32) * 60
    targets = jnp.arange(16).reshape(2, 8) % 11

    def nll(hidden, table):
        return cross_entropy(hidden, table, targets, jnp.ones((2, 8)), chunk=chunk).nll / 1e4

    assert not np.isfinite(jnp.einsum("btd,vd->btv", hidden, table)).all()
    assert near(nll, hidden, table).dtype == jnp.float32


def test_angles_are_those_of_float32():
    positions = jnp.arange(3000, 3008)[None]  # float16 has every second integer there, and angles of 8 bits
    near(lambda x: rotate(x, rope_tables(positions, Rope(), 16)), normal(0, 1, 8, 2, 16), tolerance=1e-3)
