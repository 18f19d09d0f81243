"""Losses of a policy and its value function against loops in float64, published values and rlax."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import objectives as o

B, T, V = 5, 6, 4
POLICY, VALUE = jax.jit(partial(o.clipped_policy, clip=0.2, clip_high=0.3)), jax.jit(partial(o.clipped_value, clip=0.4))
GRPO = jax.jit(partial(o.grpo, clip=0.2, kl_coefficient=0.3))


def batch(seed):
    rng = np.random.default_rng(seed)
    logprobs = -np.abs(rng.normal(size=(B, T))).astype(np.float32)
    old = logprobs + 0.4 * rng.normal(size=(B, T)).astype(np.float32)
    mask = rng.integers(0, 2, (B, T))
    mask[0], mask[1] = 1, 0
    return logprobs, old, rng.normal(size=(B, T)).astype(np.float32), mask


def surrogate(ratio, advantage, low, high):
    return -min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_policy_loss_is_a_loop_over_tokens(seed):
    logprobs, old, advantages, mask = batch(seed)
    losses, cut, kl = [], [], []
    for lp, q, a, m in zip(*(x.ravel().astype(float) for x in (logprobs, old, advantages, mask)), strict=True):
        if m:
            ratio = np.exp(lp - q)
            losses.append(surrogate(ratio, a, 0.2, 0.3))
            cut.append(abs(losses[-1] + ratio * a) > 1e-9)
            kl.append(ratio - 1 - np.log(ratio))
    loss, aux = POLICY(logprobs, old, advantages, mask)
    np.testing.assert_allclose(loss, sum(losses), rtol=1e-5, atol=1e-5)
    assert aux["weight"] == mask.sum() and 0 < sum(cut) < len(cut)
    metrics = aux["metrics"]
    np.testing.assert_allclose(metrics["clip_fraction"], [sum(cut), len(cut)])
    np.testing.assert_allclose(metrics["kl"], [sum(kl), len(kl)], rtol=1e-4)
    np.testing.assert_allclose(metrics["ratio"][0], np.exp((logprobs - old)[mask > 0]).sum(), rtol=1e-5)
    each = POLICY(logprobs, old, advantages[:, 0], mask)[0]
    np.testing.assert_allclose(each, POLICY(logprobs, old, np.repeat(advantages[:, :1], T, 1), mask)[0], rtol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_value_loss_is_a_loop_over_tokens(seed):
    values, old, returns, mask = batch(seed)
    old = (values + 0.8 * (old - values)).astype(np.float32)
    losses, plain, cut = [], [], 0
    for v, q, g, m in zip(*(x.ravel().astype(float) for x in (values, old, returns, mask)), strict=True):
        if m:
            near = q + min(max(v - q, -0.4), 0.4)
            losses.append(0.5 * max((v - g) ** 2, (near - g) ** 2))
            plain.append((v - g) ** 2)
            cut += (near - g) ** 2 > (v - g) ** 2 + 1e-9
    loss, aux = VALUE(values, old, returns, mask)
    np.testing.assert_allclose(loss, sum(losses), rtol=1e-5)
    np.testing.assert_allclose(aux["metrics"]["squared_error"], [sum(plain), len(plain)], rtol=1e-5)
    assert aux["metrics"]["clip_fraction"][0] == cut
    free = jax.jit(partial(o.clipped_value, clip=None))(values, old, returns, mask)[0]
    np.testing.assert_allclose(free, 0.5 * sum(plain), rtol=1e-5)
    on = mask > 0
    share = jax.jit(o.explained_variance)(values, returns, mask)
    np.testing.assert_allclose(share, 1 - np.var((returns - values)[on]) / np.var(returns[on]), rtol=1e-4)


def test_explained_variance_of_equal_returns_and_of_perfect_values():
    explained = jax.jit(o.explained_variance)
    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    assert explained(x, np.ones_like(x), np.ones((2, 3))) == 0 == explained(x, x, np.zeros((2, 3)))
    assert explained(x, x, np.ones((2, 3))) == 1
    assert abs(explained(np.ones_like(x), x, np.ones((2, 3)))) < 1e-6


@pytest.mark.parametrize("seed", [0, 1])
def test_answers_weigh_the_same_however_long_they_are(seed):
    logprobs, old, reference, mask = batch(seed)
    advantages = np.random.default_rng(seed).normal(size=B).astype(np.float32)
    wanted, policy, sums = [], [], []
    for b in range(B):
        there = np.flatnonzero(mask[b])
        if not len(there):
            continue
        lp, q, r = (x[b, there].astype(float) for x in (logprobs, old, reference))
        kl = np.exp(r - lp) - 1 - (r - lp)
        tokens = [surrogate(ratio, advantages[b], 0.2, 0.2) for ratio in np.exp(lp - q)]
        wanted.append(np.mean(tokens) + 0.3 * kl.mean())
        policy.append(kl.mean())
        sums.append(-advantages[b] * lp.sum())
    loss, aux = GRPO(logprobs, old, advantages, mask, reference=reference)
    np.testing.assert_allclose(loss, sum(wanted), rtol=1e-5, atol=1e-5)
    assert aux["weight"] == len(wanted) < B
    np.testing.assert_allclose(aux["metrics"]["kl"], [sum(policy), len(policy)], rtol=1e-4)
    loss, aux = jax.jit(o.reinforce)(logprobs, advantages, mask)
    np.testing.assert_allclose(loss, sum(sums), rtol=1e-5)
    assert aux["weight"] == len(sums)


def test_on_policy_the_gradients_of_all_three_are_the_policy_gradient():
    logprobs, _, _, mask = batch(0)
    advantages = np.random.default_rng(0).normal(size=B).astype(np.float32)
    slope = lambda loss: jax.jit(jax.grad(lambda lp: loss(lp)[0]))(logprobs)  # noqa: E731
    plain = slope(lambda lp: o.reinforce(lp, advantages, mask))
    np.testing.assert_allclose(plain, -advantages[:, None] * mask, rtol=1e-6)
    clipped = slope(lambda lp: o.clipped_policy(lp, logprobs, advantages, mask))
    np.testing.assert_allclose(clipped, plain, rtol=1e-6)
    grouped = slope(lambda lp: o.grpo(lp, logprobs, advantages, mask))
    np.testing.assert_allclose(grouped, plain / np.maximum(mask.sum(1, keepdims=True), 1), rtol=1e-6)


LOGITS = np.array([[1, 1, 1], [2, 0, 0], [-1, -2, -3]], np.float32)


def chosen(logits, actions):
    return jax.nn.log_softmax(jnp.asarray(logits))[jnp.arange(3), jnp.array(actions)]


@pytest.mark.parametrize(("sign", "wanted"), [(1, -0.17117467), (-1, 0.19333333)])
def test_published_clipped_surrogate_of_rlax(sign, wanted):
    old = np.array([[1, 1, 1], [2, 0, 0], [-3, -2, -1]], np.float32)
    advantages = sign * jnp.array([0.3, 0.2, 0.1])
    lp, q = chosen(LOGITS, [0, 1, 2]), chosen(old, [0, 1, 2])
    loss, aux = jax.jit(partial(o.clipped_policy, clip=0.2))(lp[None], q[None], advantages[None], jnp.ones((1, 3)))
    np.testing.assert_allclose(loss / aux["weight"], wanted, atol=1e-4)


def test_published_policy_gradient_and_entropy_losses_of_rlax():
    on = jnp.ones((1, 3))
    # rlax weighs each step; a weight is as good as a factor of the advantage.
    cases = [
        (LOGITS, [0, 1, 2], [0.3, 0.2, 0.1], [-2, 2, 0], 0.0788835, 0.288693),
        (LOGITS, [0, 0, 0], [-0.3, -0.2, -0.1], [-3, 1, -1], 0.3272009, 1.154220),
    ]
    for logits, actions, advantages, weights, policy, entropy in cases:
        weighed = jnp.array([advantages]) * jnp.array([weights])
        loss, _ = o.reinforce(chosen(logits, actions)[None], weighed, on)
        np.testing.assert_allclose(loss / 3, policy, rtol=1e-5)
        np.testing.assert_allclose(-jnp.mean(o.entropy(logits) * jnp.array(weights)), entropy, rtol=1e-5)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:Rlax .* will be deprecated")
@pytest.mark.parametrize("seed", [0, 1])
def test_values_and_gradients_of_rlax(seed):
    rlax = pytest.importorskip("rlax")
    logprobs, old, advantages, _ = batch(seed)
    rng = np.random.default_rng(seed)
    logits, actions = rng.normal(size=(B * T, V)).astype(np.float32), rng.integers(0, V, B * T)
    weights = rng.random(B * T).astype(np.float32)
    on, flat = np.ones((B, T)), (-1,)
    pick = lambda logits: jnp.take_along_axis(jax.nn.log_softmax(logits), actions[:, None], 1)  # noqa: E731
    pairs = {
        "surrogate": (
            lambda lp: o.clipped_policy(lp, old, advantages, on)[0] / (B * T),
            lambda lp: rlax.clipped_surrogate_pg_loss(jnp.exp(lp - old).reshape(flat), advantages.reshape(flat), 0.2),
            logprobs,
        ),
        "policy gradient": (
            lambda x: o.reinforce(pick(x), advantages.reshape(flat) * weights, np.ones((B * T, 1)))[0] / (B * T),
            lambda x: rlax.policy_gradient_loss(x, actions, advantages.reshape(flat), weights),
            logits,
        ),
        "entropy": (
            lambda x: o.entropy_bonus(x[None], np.ones((1, B * T)))[0] / (B * T),
            lambda x: rlax.entropy_loss(x, np.ones(B * T, np.float32)),
            logits,
        ),
    }
    for name, (ours, theirs, x) in pairs.items():
        found, wanted = jax.jit(lambda x, f=ours, g=theirs: (jax.value_and_grad(f)(x), jax.value_and_grad(g)(x)))(x)
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4, atol=1e-6, err_msg=name)


def test_entropy_is_a_sum_over_the_tokens_that_are_allowed():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, V)).astype(np.float32)
    logits[0, 0, 1] = -np.inf
    logits[1, 2, 1:] = -np.inf
    wanted = np.zeros((2, 3))
    for b, t in np.ndindex(2, 3):
        odds = [np.exp(float(x)) for x in logits[b, t] if np.isfinite(x)]
        wanted[b, t] = -sum(p / sum(odds) * np.log(p / sum(odds)) for p in odds)
    run = jax.jit(jax.value_and_grad(lambda x, m: o.entropy_bonus(x, m)[0]))
    for mask in (np.ones((2, 3)), np.eye(2, 3)):
        loss, grads = run(logits, mask)
        np.testing.assert_allclose(loss, -(wanted * mask).sum(), rtol=1e-5, atol=1e-6)
        assert np.isfinite(grads).all() and not grads[~np.isfinite(logits)].any()
    np.testing.assert_allclose(jax.jit(o.entropy)(np.zeros(V, np.float32)), np.log(V), rtol=1e-6)


def test_absurd_ratios_stay_finite():
    logprobs, old = jnp.array([[0.0, 0.0, -500.0, -500.0]]), jnp.array([[-500.0, -500.0, 0.0, 0.0]])
    advantages, on = jnp.array([[1.0, -1.0, 1.0, -1.0]]), jnp.ones((1, 4))

    def total(lp):
        return (
            o.clipped_policy(lp, old, advantages, on)[0]
            + o.grpo(lp, old, advantages, on, reference=old, kl_coefficient=0.1)[0]
        )

    loss, grads = jax.jit(jax.value_and_grad(total))(logprobs)
    assert np.isfinite(loss) and np.isfinite(grads).all()


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_estimates_are_their_formulas_and_of_the_kl(kind):
    rng = np.random.default_rng(0)
    p, q = (np.exp(x) / np.exp(x).sum() for x in 0.5 * rng.normal(size=(2, V)))
    log_ratio = np.log(p / q)
    wanted = {"k1": log_ratio, "k2": log_ratio**2 / 2, "k3": q / p - 1 + log_ratio}[kind]
    estimate = jax.jit(partial(o.kl_estimate, kind=kind))
    each = np.asarray(estimate(np.log(p), np.log(q)), np.float64)
    np.testing.assert_allclose(each, wanted, atol=1e-6)
    exact = (p * log_ratio).sum()
    error = abs((p * each).sum() - exact)
    assert error < 1e-6 if kind != "k2" else 1e-4 < error < 0.2 * exact
    assert kind == "k1" or (each >= 0).all()


def test_of_the_estimates_only_the_second_has_the_gradient_of_the_kl():
    x, reference = jnp.array([0.3, -0.2, 0.9]), jax.nn.log_softmax(jnp.array([1.0, 0.0, -0.5]))
    exact = jax.grad(lambda x: jnp.sum(jax.nn.softmax(x) * (jax.nn.log_softmax(x) - reference)))(x)

    def expected(x, kind):  # of the gradient, over what the policy samples
        chances = jax.lax.stop_gradient(jax.nn.softmax(x))
        return jnp.sum(chances * o.kl_estimate(jax.nn.log_softmax(x), reference, kind=kind))

    found = jax.jit(lambda x: {k: jax.grad(expected)(x, k) for k in ("k1", "k2", "k3")})(x)
    np.testing.assert_allclose(found["k2"], exact, atol=1e-6)
    np.testing.assert_allclose(found["k1"], 0, atol=1e-6)
    assert np.abs(found["k3"] - exact).max() > 0.01


def test_the_coefficient_goes_where_the_kl_is_too_large():
    step = partial(o.adaptive_kl, target=6.0)
    np.testing.assert_allclose(step(0.2, 6.0), 0.2, rtol=1e-6)
    np.testing.assert_allclose(step(0.2, 6.6), 0.2 * 1.01, rtol=1e-6)
    np.testing.assert_allclose([step(0.2, 60.0), step(0.2, -3.0)], [0.2 * 1.02, 0.2 * 0.98], rtol=1e-6)
    np.testing.assert_allclose(step(0.2, 60.0, gain=256 / 10_000, clip=0.5), 0.2 * (1 + 0.5 * 0.0256), rtol=1e-6)
    assert o.fixed_kl(0.2, 60.0) == 0.2
    coefficient, kl = 0.1, 20.0
    for _ in range(400):  # a policy whose KL falls with the coefficient ends at the target
        coefficient = float(step(coefficient, kl))
        kl = 2 / coefficient
    np.testing.assert_allclose(kl, 6.0, rtol=0.02)
