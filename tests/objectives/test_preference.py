"""Losses of preferences against loops in float64 and against published values."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import objectives as o
from research.objectives import pairwise_log_sigmoid

P = 9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bradley_terry_is_a_loop_over_pairs(seed):
    generator = np.random.default_rng(seed)
    first, second = generator.normal(size=(2, 9)).astype(np.float32) * 4
    preferred = generator.choice([0, 0.5, 1, 0.9], 9).astype(np.float32)
    mask = generator.integers(0, 2, 9)
    margin = generator.random(9).astype(np.float32)
    wanted, shifted = [], []
    for a, b, p, m, t in zip(*(x.astype(float) for x in (first, second, preferred)), mask, margin, strict=True):
        chance = 1 / (1 + np.exp(b - a))
        wanted.append(m * -(p * np.log(chance) + (1 - p) * np.log(1 - chance)))
        shifted.append(m * (p * np.log1p(np.exp(b - a + t)) + (1 - p) * np.log1p(np.exp(a - b + t))))
    found = pairwise_log_sigmoid(first, second, preferred=preferred, mask=mask)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    found = pairwise_log_sigmoid(first, second, preferred=preferred, margin=margin, mask=mask)
    np.testing.assert_allclose(found, shifted, atol=1e-5)
    plain = pairwise_log_sigmoid(first, second)
    np.testing.assert_allclose(plain, np.log1p(np.exp((second - first).astype(np.float64))), atol=1e-5)
    centred = jax.jit(partial(o.bradley_terry, center=0.2))
    loss, aux = centred(first, second, preferred=preferred, mask=mask)
    np.testing.assert_allclose(loss, sum(wanted) + 0.2 * (mask * (first + second) ** 2).sum(), rtol=1e-5)
    decided = (mask > 0) & (preferred != 0.5)
    right = (first > second) == (preferred > 0.5)
    assert aux["weight"] == mask.sum()
    assert [float(x) for x in aux["metrics"]["accuracy"]] == [(right & decided).sum(), decided.sum()]
    gap = np.where(preferred > 0.5, first - second, second - first)
    np.testing.assert_allclose(aux["metrics"]["margin"][0], gap[decided].sum(), rtol=1e-5)


def test_swapping_a_pair_changes_nothing_and_a_tie_pulls_together():
    first, second, p = jnp.array([3.0, -1.0]), jnp.array([1.0, 1.0]), jnp.array([1.0, 0.25])
    swapped = pairwise_log_sigmoid(second, first, preferred=1 - p, margin=0.5)
    np.testing.assert_allclose(pairwise_log_sigmoid(first, second, preferred=p, margin=0.5), swapped, rtol=1e-6)
    pull = jax.grad(lambda a: pairwise_log_sigmoid(a, second, preferred=0.5).sum())
    assert (np.sign(pull(first)) == [1, -1]).all() and (pull(second) == 0).all()


def test_far_scores_and_masked_ones_stay_finite():
    far = jnp.array([1e4, -1e4, jnp.inf, jnp.nan], jnp.float32)
    mask = jnp.array([1, 1, 0, 0])
    losses, grads = jax.value_and_grad(lambda a: pairwise_log_sigmoid(a, jnp.zeros(4), mask=mask).sum())(far)
    assert losses == 1e4 and grads.tolist() == [0, -1, 0, 0]
    half = pairwise_log_sigmoid(far[:2].astype(jnp.bfloat16), jnp.zeros(2, jnp.bfloat16))
    assert half.dtype == jnp.float32 and np.isfinite(half).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_plackett_luce_is_the_chance_of_drawing_the_ranking(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(7, 4)).astype(np.float32) * 3
    mask = rng.integers(0, 2, (7, 4)) | (np.arange(7)[:, None] == 0)
    mask[1] = [0, 1, 0, 0]
    wanted, right, pairs = [], 0, 0
    for row, on in zip(scores.astype(float), mask > 0, strict=True):
        left, chance = list(row[on]), 1.0
        if len(left) < 2:
            continue
        right += sum(a > b for i, a in enumerate(left) for b in left[i + 1 :])
        pairs += len(left) * (len(left) - 1) // 2
        while left:
            chance *= np.exp(left[0]) / np.exp(left).sum()
            left.pop(0)
        wanted.append(-np.log(chance))
    loss, aux = jax.jit(lambda s, m: o.plackett_luce(s, mask=m))(scores, mask)
    np.testing.assert_allclose(loss, sum(wanted), rtol=1e-5)
    assert aux["weight"] == len(wanted) < 7
    assert [float(x) for x in aux["metrics"]["accuracy"]] == [right, pairs]


def test_a_ranking_of_two_is_a_pair():
    scores = jnp.array([[2.0, -1.0], [0.5, 3.0]])
    ranked, paired = jax.jit(lambda s: (o.plackett_luce(s)[0], o.bradley_terry(*s.T)[0]))(scores)
    np.testing.assert_allclose(ranked, paired, rtol=1e-6)


def pairs(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, (P, 2)).astype(np.float32)
    policy = (-lengths * rng.random((P, 2)) * 2).astype(np.float32)
    reference = policy + rng.normal(size=(P, 2)).astype(np.float32) * 5
    return policy, reference, lengths, rng.choice([0, 0.5, 1, 0.9], P).astype(np.float32), rng.integers(0, 2, P)


def log_sigmoid(x):
    return -np.logaddexp(0, -x)


# name -> ours, and the loss of one pair from policy, reference, lengths [2] and p
LOOPS = {
    "dpo": (
        lambda q, r, n, p, m: o.dpo(q, r, beta=0.2, preferred=p, mask=m),
        lambda q, r, n, p: -p * log_sigmoid(0.2 * gap(q - r)) - (1 - p) * log_sigmoid(-0.2 * gap(q - r)),
    ),
    "conservative": (
        lambda q, r, n, p, m: o.dpo(q, r, beta=0.2, label_smoothing=0.3, mask=m),
        lambda q, r, n, p: -0.7 * log_sigmoid(0.2 * gap(q - r)) - 0.3 * log_sigmoid(-0.2 * gap(q - r)),
    ),
    "robust": (
        lambda q, r, n, p, m: o.robust_dpo(q, r, beta=0.2, label_smoothing=0.3, preferred=p, mask=m),
        lambda q, r, n, p: p * robust(0.2 * gap(q - r)) + (1 - p) * robust(-0.2 * gap(q - r)),
    ),
    "ipo per token": (
        lambda q, r, n, p, m: o.ipo(q, r, tau=0.3, lengths=n, preferred=p, mask=m),
        lambda q, r, n, p: p * (gap((q - r) / n) - 1 / 0.6) ** 2 + (1 - p) * (gap((q - r) / n) + 1 / 0.6) ** 2,
    ),
    "ipo of sums": (
        lambda q, r, n, p, m: o.ipo(q, r, tau=0.3, mask=m),
        lambda q, r, n, p: (gap(q - r) - 1 / 0.6) ** 2,
    ),
    "hinge": (
        lambda q, r, n, p, m: o.hinge(q, r, beta=0.2, preferred=p, mask=m),
        lambda q, r, n, p: p * max(0, 1 - 0.2 * gap(q - r)) + (1 - p) * max(0, 1 + 0.2 * gap(q - r)),
    ),
    "simpo": (
        lambda q, r, n, p, m: o.simpo(q, n, beta=2.5, gamma=0.7, preferred=p, mask=m),
        lambda q, r, n, p: -p * log_sigmoid(2.5 * gap(q / n) - 0.7) - (1 - p) * log_sigmoid(-2.5 * gap(q / n) - 0.7),
    ),
    "orpo": (
        lambda q, r, n, p, m: o.orpo(q, n, weight=0.4, preferred=p, mask=m),
        lambda q, r, n, p: p * odds_ratio(q / n) + (1 - p) * odds_ratio((q / n)[::-1]),
    ),
}


def gap(pair):
    return pair[0] - pair[1]


def robust(h):
    return (-0.7 * log_sigmoid(h) + 0.3 * log_sigmoid(-h)) / 0.4


def odds_ratio(mean):
    odds = np.exp(mean) / (1 - np.exp(mean))
    return -mean[0] - 0.4 * log_sigmoid(gap(np.log(odds)))


@pytest.mark.parametrize("name", LOOPS)
def test_each_loss_is_a_loop_over_pairs(name):
    ours, one = LOOPS[name]
    ours = jax.jit(ours)
    for seed in range(3):
        policy, reference, lengths, preferred, mask = pairs(seed)
        loss, aux = ours(policy, reference, lengths, preferred, mask)
        rows = [x.astype(np.float64) for x in (policy, reference, lengths, preferred)]
        wanted = [one(*row) for row, m in zip(zip(*rows, strict=True), mask, strict=True) if m]
        np.testing.assert_allclose(loss, sum(wanted), rtol=2e-5)
        assert aux["weight"] == mask.sum()


def test_metrics_of_pairs_are_those_of_the_implied_rewards():
    policy, reference, _, preferred, mask = pairs(0)
    metrics = jax.jit(partial(o.dpo, beta=0.2))(policy, reference, preferred=preferred, mask=mask)[1]["metrics"]
    rewards, on = 0.2 * (policy - reference).astype(np.float64), mask > 0
    np.testing.assert_allclose(metrics["reward_chosen"], [rewards[on, 0].sum(), on.sum()], rtol=1e-5)
    np.testing.assert_allclose(metrics["reward_rejected"], [rewards[on, 1].sum(), on.sum()], rtol=1e-5)
    side = np.sign(preferred - 0.5) * (rewards[:, 0] - rewards[:, 1])
    decided = on & (preferred != 0.5)
    assert 0 < decided.sum() < on.sum()
    np.testing.assert_allclose(metrics["margin"], [side[decided].sum(), decided.sum()], rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], [(side[decided] > 0).sum(), decided.sum()])


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        (partial(o.dpo, beta=0.1), [0.69314718, 0.31326169, 0.12692801]),
        (partial(o.dpo, beta=0.1, label_smoothing=0.1), [0.69314718, 0.41326169, 0.32692801]),
        (partial(o.hinge, beta=0.1), [1, 0, 0]),
        (partial(o.ipo, tau=0.1), [25, 25, 225]),
    ],
)
def test_published_values_of_three_pairs(loss, wanted):
    policy = jnp.array([[-0.5, -0.1], [-10, -30], [-1, -21]])
    reference = jnp.array([[-0.5, -0.1], [-10.1, -20.1], [-0.1, -0.1]])
    masks = np.vstack([np.eye(3), np.ones(3)])  # each pair alone, and all
    found = jax.jit(jax.vmap(lambda m: loss(policy, reference, mask=m)[0]))(masks)
    np.testing.assert_allclose(found, [*wanted, sum(wanted)], rtol=1e-6, atol=1e-5)


KTO = jax.jit(partial(o.kto, beta=0.3, desirable_weight=0.8, undesirable_weight=1.3))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kto_is_a_loop_over_answers(seed):
    rng = np.random.default_rng(seed)
    policy, reference, *other = rng.normal(size=(4, P)).astype(np.float32) * 4
    good, mask = rng.integers(0, 2, P), rng.integers(0, 2, P)
    total, count = jax.jit(o.kto_baseline)(*other, mask=mask)
    np.testing.assert_allclose(total, ((other[0] - other[1]) * mask).sum(), rtol=1e-5, atol=1e-5)
    assert count == mask.sum()
    for baseline in (-1.0, 0.0, 1.7):
        loss, aux = KTO(policy, reference, good, baseline, mask=mask)
        wanted, rewards = [], {1: [], 0: []}
        for q, r, g, m in zip(policy.astype(float), reference.astype(float), good, mask, strict=True):
            if m:
                v = 0.3 * (q - r - max(baseline, 0)) * (1 if g else -1)
                wanted.append((0.8 if g else 1.3) * (1 - 1 / (1 + np.exp(-v))))
                rewards[g].append(0.3 * (q - r))
        np.testing.assert_allclose(loss, sum(wanted), rtol=1e-5)
        for name, g in (("reward_chosen", 1), ("reward_rejected", 0)):
            np.testing.assert_allclose(aux["metrics"][name], [sum(rewards[g]), len(rewards[g])], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(aux["metrics"]["kl"], [max(baseline, 0) * mask.sum(), mask.sum()], rtol=1e-6)


def test_log_probabilities_of_answers_are_sums_over_their_tokens():
    logprobs = jnp.array([[[-1.0, -2.0, jnp.nan], [-4.0, jnp.inf, -8.0]]])
    found = o.sequence_logprobs(logprobs, jnp.array([[[1, 1, 0], [0, 0, 1]]]))
    assert found.logprobs.tolist() == [[-3, -8]] and found.lengths.tolist() == [[2, 1]]
    half = o.sequence_logprobs(jnp.full((1, 1000), -1.0, jnp.bfloat16), jnp.ones((1, 1000)))
    assert half.logprobs.dtype == jnp.float32 and half.logprobs[0] == -1000


def test_sure_answers_have_finite_odds():
    policy, lengths = jnp.array([[0.0, -60.0], [-1e-9, -300.0]]), jnp.ones((2, 2))
    loss, grads = jax.jit(jax.value_and_grad(lambda q: o.orpo(q, lengths)[0]))(policy)
    assert np.isfinite(loss) and np.isfinite(grads).all()


def test_ipo_stops_where_dpo_goes_on():
    # Labels without doubt: the gradient of IPO is 0 at 1/(2 tau), that of DPO nowhere.
    reference, at = jnp.zeros((1, 2)), jnp.array([[2.5, -2.5]])
    assert not jax.jit(jax.grad(lambda q: o.ipo(q, reference, tau=0.1)[0]))(at).any()
    still = jax.jit(jax.grad(lambda q: o.dpo(q, reference, beta=0.1)[0]))(4 * at)
    assert still[0, 0] < 0 < still[0, 1]
