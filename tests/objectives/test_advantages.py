"""Advantages, returns and whitening against loops in float64, published values and rlax."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import objectives as o

B, T = 6, 7
GAE, RETURNS = jax.jit(o.gae), jax.jit(o.discounted_returns)


def rollout(seed):
    """Rewards, values, discounts, bootstrap and masks with gaps, one row of a single step and one without any."""
    rng = np.random.default_rng(seed)
    rewards, values = rng.normal(size=(2, B, T)).astype(np.float32)
    mask = (rng.random((B, T)) < 0.7).astype(np.int32)
    mask[0], mask[1], mask[2] = np.arange(T) == 3, 0, 1
    discount = rng.choice([0, 0.5, 0.9, 1], (B, T)).astype(np.float32)
    return rewards, values, discount, rng.normal(size=B).astype(np.float32), mask


def by_hand(rewards, values, mask, discount, trace, bootstrap):
    """Each row's steps that exist, one after the other: a sum of deltas, each as far as its traces reach."""
    out = np.zeros((B, T))
    for b in range(B):
        steps = [t for t in range(T) if mask[b, t]]
        v = [*(float(values[b, t]) for t in steps), float(bootstrap[b])]
        for i, t in enumerate(steps):
            reach = 1.0
            for j in range(i, len(steps)):
                gamma = float(discount[b, steps[j]])
                out[b, t] += reach * (float(rewards[b, steps[j]]) + gamma * v[j + 1] - v[j])
                reach *= gamma * trace
    return out


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("trace", [0.0, 0.7, 1.0])
def test_gae_is_a_sum_of_errors_over_the_steps_that_exist(seed, trace):
    rewards, values, discount, bootstrap, mask = rollout(seed)
    found = GAE(rewards, values, mask, discount=discount, trace=trace, bootstrap=bootstrap)
    np.testing.assert_allclose(found, by_hand(rewards, values, mask, discount, trace, bootstrap), atol=1e-5)
    flat = GAE(rewards, values, mask, trace=trace)
    np.testing.assert_allclose(flat, by_hand(rewards, values, mask, np.ones((B, T)), trace, np.zeros(B)), atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_returns_are_discounted_sums(seed):
    rewards, _, discount, bootstrap, mask = rollout(seed)
    wanted = by_hand(rewards, np.zeros((B, T)), mask, discount, 1.0, bootstrap)
    np.testing.assert_allclose(RETURNS(rewards, mask, discount=discount, bootstrap=bootstrap), wanted, atol=1e-5)


LATER = {
    1.0: [-1.45119, -4.45575, 2.53965, 0.5249, -0.49],
    0.7: [-0.67698, -5.24817, 2.48461, 0.67043, -0.49],
    0.4: [0.56732, -6.04212, 2.34312, 0.81596, -0.49],
}
ENDS = {1.0: [3, 2, 1, 0, -4.9], 0.7: [2.2899, 1.73, 1, 0, -4.9], 0.4: [1.7256, 1.46, 1, 0, -4.9]}


@pytest.mark.parametrize("trace", LATER)
def test_published_advantages_of_rlax(trace):
    on = jnp.ones((1, 5))
    one = [[0, 0, 1, 0, -0.5], [1, 4, -3, -2, -1], -1, [0.99] * 5, LATER]
    two = [[0, 0, 0, 0, 1], [-3, -2, -1, 0, 5], -1, [0.9, 0.9, 0.9, 0, 0.9], ENDS]
    for rewards, values, last, discount, wanted in (one, two):
        r, v, g = (jnp.array([x], jnp.float32) for x in (rewards, values, discount))
        found = GAE(r, v, on, discount=g, trace=trace, bootstrap=jnp.float32(last))
        np.testing.assert_allclose(found[0], wanted[trace], atol=1e-3)


def test_published_returns_of_rlax_and_torchtune():
    rewards, discount = jnp.array([[1, 0, -1, 0, 1.0]]), jnp.array([[0.5, 0.9, 1, 0.5, 0.8]])
    on, last = jnp.ones((1, 5)), jnp.float32(3)
    values = jnp.array([[7, 3, 1, 5, -5.0]])  # the first is part of no return
    returns = GAE(rewards, values, on, discount=discount, trace=0.75, bootstrap=last) + values
    np.testing.assert_allclose(returns[0], [1.6460547, 0.72281253, 0.7375001, 0.6500001, 3.4], rtol=1e-5)
    plain = RETURNS(rewards, on, discount=discount, bootstrap=last)
    np.testing.assert_allclose(plain[0], [1.315, 0.63, 0.7, 1.7, 3.4], rtol=1e-6)
    x = jnp.array([[0, 0, 0, 1.0]])
    returns = jax.jit(partial(o.gae, discount=0.9, trace=0.95))(x, x, jnp.ones((1, 4))) + x
    np.testing.assert_allclose(returns[0], [0.6579225, 0.7695, 0.9, 1], rtol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("seed", [0, 1])
def test_advantages_of_rlax(seed):
    rlax = pytest.importorskip("rlax")
    rng = np.random.default_rng(seed)
    rewards, discount = rng.normal(size=(B, T)).astype(np.float32), rng.random((B, T)).astype(np.float32)
    values = rng.normal(size=(B, T + 1)).astype(np.float32)
    theirs = jax.jit(jax.vmap(partial(rlax.truncated_generalized_advantage_estimation, lambda_=0.8)))
    found = GAE(rewards, values[:, :-1], np.ones((B, T)), discount=discount, trace=0.8, bootstrap=values[:, -1])
    np.testing.assert_allclose(found, theirs(rewards, discount, values=values), atol=1e-5)


def test_the_score_comes_with_the_last_token_and_the_penalty_with_each():
    # torchtune's example, then the same with tokens that do not exist before, between and behind.
    ratio = -np.array([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [0.3, 0.3, 0.3]], np.float32)
    rewards = jax.jit(partial(o.token_rewards, kl_coefficient=0.5))
    scores, zeros = jnp.array([1.0, 2.0, 3.0]), np.zeros((3, 3), np.float32)
    wanted = [[0.05, 0.05, 1.05], [0.1, 0.1, 2.1], [0.15, 0.15, 3.15]]
    np.testing.assert_allclose(rewards(scores, ratio, zeros, np.ones((3, 3))), wanted, rtol=1e-6)
    places = [1, 3, 4]
    wide, mask, spread = np.full((3, 6), np.nan, np.float32), np.zeros((3, 6)), np.zeros((3, 6))
    wide[:, places], mask[:, places], spread[:, places] = ratio, 1, wanted
    mask[1], spread[1] = 0, 0  # an answer without a token brings nothing
    np.testing.assert_allclose(rewards(scores, wide, np.zeros_like(wide), mask), spread, rtol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_whitening_is_over_what_counts(seed):
    rng = np.random.default_rng(seed)
    x = (3 + 2 * rng.normal(size=(B, T))).astype(np.float32)
    mask = rng.integers(0, 2, (B, T))
    on = x[mask > 0].astype(np.float64)
    wanted = np.where(mask, (x - on.mean()) / on.std(), 0)
    spoiled = np.where(mask, x, np.nan)
    found, kept = jax.jit(lambda x, m: (o.whiten(x, m), o.whiten(x, m, shift=False)))(spoiled, mask)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(kept, np.where(mask, wanted + on.mean(), 0), atol=1e-5)
    assert not jax.jit(o.whiten)(np.full((B, T), np.nan, np.float32), np.zeros((B, T))).any()
    single = jax.jit(o.whiten)(x, np.eye(B, T) * (np.arange(B) == 2)[:, None])
    assert not single.any()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_answers_are_compared_with_the_others_to_the_same_prompt(seed):
    rng = np.random.default_rng(seed)
    rewards = rng.normal(size=(B, 4)).astype(np.float32)
    mask = rng.integers(0, 2, (B, 4))
    mask[0], mask[1], mask[2], rewards[3] = 1, [0, 1, 0, 0], 0, 0.1
    loo, grouped, plain = np.zeros((3, B, 4))
    for b in range(B):
        there = np.flatnonzero(mask[b])
        for i in there if len(there) > 1 else ():
            r = rewards[b, there].astype(np.float64)
            loo[b, i] = rewards[b, i] - np.mean([rewards[b, j] for j in there if j != i])
            plain[b, i] = rewards[b, i] - r.mean()
            grouped[b, i] = plain[b, i] / (r.std(ddof=1) + 1e-4)
    found = jax.jit(
        lambda r, m: (
            o.leave_one_out(r, mask=m),
            o.group_advantages(r, mask=m),
            o.group_advantages(r, scale=False, mask=m),
        )
    )(np.where(mask, rewards, np.nan), mask)
    for ours, wanted in zip(found, (loo, grouped, plain), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=2e-5)
    assert not found[1][3].any()  # all worth the same, whatever is left of rounding


def test_leave_one_out_is_a_larger_group_advantage():
    rewards = np.random.default_rng(0).normal(size=(B, 5)).astype(np.float32)
    loo, plain = jax.jit(lambda r: (o.leave_one_out(r), o.group_advantages(r, scale=False)))(rewards)
    np.testing.assert_allclose(loo, plain * 5 / 4, atol=1e-6)
