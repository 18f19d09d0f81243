"""Losses of preferences against numpy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.objectives import pairwise_log_sigmoid


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bradley_terry_is_a_loop_over_pairs(seed):
    generator = np.random.default_rng(seed)
    first, second = generator.normal(size=(2, 9)).astype(np.float32) * 4
    preferred = generator.choice([0, 0.5, 1, 0.9], 9).astype(np.float32)
    mask = generator.integers(0, 2, 9)
    wanted = []
    for a, b, p, m in zip(first.astype(float), second.astype(float), preferred.astype(float), mask, strict=True):
        chance = 1 / (1 + np.exp(b - a))
        wanted.append(m * -(p * np.log(chance) + (1 - p) * np.log(1 - chance)))
    found = pairwise_log_sigmoid(first, second, preferred=preferred, mask=mask)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    plain = pairwise_log_sigmoid(first, second)
    np.testing.assert_allclose(plain, np.log1p(np.exp((second - first).astype(np.float64))), atol=1e-5)


def test_swapping_a_pair_changes_nothing_and_a_tie_pulls_together():
    first, second, p = jnp.array([3.0, -1.0]), jnp.array([1.0, 1.0]), jnp.array([1.0, 0.25])
    swapped = pairwise_log_sigmoid(second, first, preferred=1 - p)
    np.testing.assert_allclose(pairwise_log_sigmoid(first, second, preferred=p), swapped, rtol=1e-6)
    pull = jax.grad(lambda a: pairwise_log_sigmoid(a, second, preferred=0.5).sum())
    assert (np.sign(pull(first)) == [1, -1]).all() and (pull(second) == 0).all()


def test_far_scores_and_masked_ones_stay_finite():
    far = jnp.array([1e4, -1e4, jnp.inf, jnp.nan], jnp.float32)
    mask = jnp.array([1, 1, 0, 0])
    losses, grads = jax.value_and_grad(lambda a: pairwise_log_sigmoid(a, jnp.zeros(4), mask=mask).sum())(far)
    assert losses == 1e4 and grads.tolist() == [0, -1, 0, 0]
    half = pairwise_log_sigmoid(far[:2].astype(jnp.bfloat16), jnp.zeros(2, jnp.bfloat16))
    assert half.dtype == jnp.float32 and np.isfinite(half).all()
