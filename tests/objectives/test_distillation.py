"""Losses of distillation against published numbers, loops in float64, torch and `trl`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import objectives as o

# The logits of torchtune's test of its distillation losses, [2, 4, 4]; all labels count there.
STUDENT = np.array(
    [
        [[1.1250, -0.4102, -0.0879, -2.5], [0.2676, 0.3535, 0.8711, -1.4688],
         [-0.1084, 1.6641, 0.0084, 0.1196], [0.5, -0.6406, -0.2236, -1.5938]],
        [[-1.5312, -1.9219, 0.0, -0.5039], [-1.5391, 1.5312, 0.5820, 0.2695],
         [-0.3887, 1.2188, 0.0, 0.6055], [0.5, 1.3828, 0.1309, -1.0312]],
    ],
    np.float32,
)  # fmt: skip
TEACHER = np.array(
    [
        [[-0.0381, -1.2578, -1.2031, 0.0947], [-0.7852, 0.4492, 1.5547, 0.0972],
         [0.8203, 0.0012, 0.7656, 0.3477], [-1.5781, 0.4297, 0.5977, 0.3926]],
        [[1.5156, 0.1641, 2.0781, -0.7734], [-0.5898, 0.4453, -0.7969, 0.6328],
         [0.6289, -0.8359, 0.9258, 0.2109], [0.0006, 0.5195, 3.2344, -1.5781]],
    ],
    np.float32,
)  # fmt: skip
BETAS = (0.0, 0.3, 0.5, 1.0)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_hand(p, q, beta):
    """D of one position between distributions in float64."""
    kl = lambda a, b: sum(x * (np.log(x) - np.log(y)) for x, y in zip(a, b, strict=True) if x > 0)  # noqa: E731
    if beta in (0, 1):
        return kl(p, q) if beta == 0 else kl(q, p)
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def case(seed, K=3, V=11):
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(2, 3, 5, V)).astype(np.float32) * 2
    mask = rng.choice([0, 0.5, 1], (3, 5)).astype(np.float32)
    logprobs = np.log(softmax(teacher.astype(float)))
    indices = np.argsort(-logprobs, axis=-1)[..., :K]
    return student, teacher, mask, indices, np.take_along_axis(logprobs, indices, -1).astype(np.float32)


def test_published_values():
    mask = jnp.ones((2, 4))
    loss, aux = o.distillation(STUDENT, TEACHER, mask)
    np.testing.assert_allclose(loss / aux["weight"], 0.6292864, atol=2e-7)
    loss, aux = o.distillation(STUDENT, TEACHER, mask, beta=1.0)
    np.testing.assert_allclose(loss / aux["weight"], 0.6774912, atol=2e-7)
    # What torchtune publishes as 1.7209 is the cross-entropy, the KL and the teacher's entropy.
    p = softmax(TEACHER.astype(float))
    np.testing.assert_allclose(0.6292864 - (p * np.log(p)).sum(-1).mean(), 1.7209, atol=5e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("beta", BETAS)
def test_divergence_is_a_loop_over_positions(seed, beta):
    student, teacher, mask, indices, logprobs = case(seed)
    whole = events = 0.0
    for at in np.ndindex(3, 5):
        z, t = student[at].astype(float), teacher[at].astype(float)
        whole += mask[at] * 9 * by_hand(softmax(t / 3), softmax(z / 3), beta)
        q, p = softmax(z)[indices[at]], softmax(t)[indices[at]]
        p, q = (np.append(x, 1 - x.sum()) ** (1 / 3) for x in (p, q))
        events += mask[at] * 9 * by_hand(p / p.sum(), q / q.sum(), beta)
    options = {"temperature": 3.0, "beta": beta}
    loss, aux = o.distillation(student, teacher, mask, **options)
    np.testing.assert_allclose(loss, whole, rtol=1e-5)
    same = (student.argmax(-1) == teacher.argmax(-1)) * mask
    np.testing.assert_allclose([aux["weight"], *aux["metrics"]["agreement"]], [mask.sum(), same.sum(), mask.sum()])
    loss, aux = o.topk_distillation(student, indices, logprobs, mask, **options)
    np.testing.assert_allclose(loss, events, rtol=2e-5)
    np.testing.assert_allclose(aux["metrics"]["agreement"], [same.sum(), mask.sum()])


@pytest.mark.parametrize("beta", BETAS)
def test_all_tokens_stored_are_the_whole_and_fewer_say_less(beta):
    student, teacher, _, indices, logprobs = case(3, K=11)
    whole = o.divergence(student, teacher, temperature=2.0, beta=beta)
    np.testing.assert_allclose(
        o.topk_divergence(student, indices, logprobs, temperature=2.0, beta=beta), whole, atol=1e-5
    )
    whole = o.divergence(student, teacher, beta=beta)
    found = [o.topk_divergence(student, indices[..., :k], logprobs[..., :k], beta=beta) for k in (1, 4, 8)]
    for less, more in zip(found, [*found[1:], whole], strict=True):
        assert (less <= more + 1e-5).all() and less.sum() < more.sum()


def test_a_teacher_that_is_sure_and_a_student_that_is_far_away_stay_finite():
    sure = jnp.array([[40.0, 0, 0, -jnp.inf], [0, 0, 0, 0]])
    far = jnp.array([[-300.0, 300, 0, 0], [90, -90, 0, 0]])
    stored = jnp.array([[0, 1], [2, 3]]), jnp.array([[0.0, -40.0], [-1.3862944, -1.3862944]])

    @jax.jit
    def run(z):
        graded = lambda loss, **options: jax.value_and_grad(lambda z: loss(z, **options).sum())(z)  # noqa: E731
        whole, events = (partial(f, *rest) for f, rest in ((_turned, (sure,)), (_events, stored)))
        apart = [graded(loss, beta=beta) for loss in (whole, events) for beta in (0.0, 0.5)]
        # A student that cannot say something which the teacher does not say either.
        return apart, jax.value_and_grad(lambda z: o.divergence(z, sure[:1], beta=1.0).sum())(sure[:1] + 1)

    apart, (value, grad) = run(far)
    for found in apart:
        assert all(np.isfinite(x).all() for x in found) and found[0] > 0
    np.testing.assert_allclose(apart[0][1][0], [-1, 1, 0, 0], atol=1e-6)
    assert value == 0 and not np.asarray(grad).any()


def _turned(teacher, student, **options):
    return o.divergence(student, teacher, **options)


def _events(indices, logprobs, student, **options):
    return o.topk_divergence(student, indices, logprobs, **options)


def test_nothing_is_differentiated_through_the_teacher():
    student, teacher, mask, _, _ = case(4)
    maps = softmax(student[None]), softmax(teacher[None])
    losses = (
        lambda s, t: o.distillation(s, t, mask, beta=0.4)[0],
        lambda s, t: o.hidden_matching(s, t, mask)[0],
        lambda s, t: o.attention_matching(s, t, mask[:1])[0],
    )
    given = ((student, teacher), (student, teacher), maps)
    run = jax.jit(lambda given: [jax.grad(f, (0, 1))(*x) for f, x in zip(losses, given, strict=True)])
    for mine, theirs in run(given):
        assert np.asarray(mine).any() and not np.asarray(theirs).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_matching_is_a_loop_over_positions_and_heads(seed):
    rng = np.random.default_rng(seed)
    B, N, T, S, D, E = 2, 4, 3, 5, 6, 7
    mask = rng.choice([0, 0.5, 1], (B, T)).astype(np.float32)
    mine, theirs, W = (rng.normal(size=s).astype(np.float32) for s in ((B, T, D), (B, T, E), (D, E)))
    wanted = sum(mask[at] * np.mean((mine[at] @ W - theirs[at]) ** 2) for at in np.ndindex(B, T))
    np.testing.assert_allclose(o.hidden_matching(mine, theirs, mask, projection=jnp.asarray(W))[0], wanted, rtol=1e-5)
    same = o.hidden_matching(mine, mine + 2, mask)
    np.testing.assert_allclose([same[0], same[1]["weight"]], [4 * mask.sum(), mask.sum()], rtol=1e-5)
    maps = softmax(rng.normal(size=(2, B, N, T, S)) * 3)
    maps[..., -1] = 0  # a key that nobody may see
    maps /= maps.sum(-1, keepdims=True)
    each = sum(mask[b, t] * by_hand(maps[1, b, n, t], maps[0, b, n, t], 0) / N for b, n, t in np.ndindex(B, N, T))
    small = maps.astype(np.float32)
    np.testing.assert_allclose(o.attention_matching(*small, mask)[0], each, rtol=1e-5)
    few, mean = maps[0, :, :2].mean(1), maps[1].mean(1)
    of_means = sum(mask[at] * by_hand(mean[at], few[at], 0) for at in np.ndindex(B, T))
    found = o.attention_matching(small[0, :, :2], small[1], mask, heads="mean")
    np.testing.assert_allclose(found[0], of_means, rtol=1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize("seed", [0, 1])
def test_torch_and_trl_find_the_same_values_and_gradients(seed):
    torch = pytest.importorskip("torch")
    gkd = pytest.importorskip("trl.experimental.gkd")
    student, teacher, mask, _, _ = case(seed)
    on = mask > 0
    labels = torch.where(torch.tensor(on), 1, -100)
    for beta in BETAS:
        z = torch.tensor(student, requires_grad=True)
        found = gkd.GKDTrainer.generalized_jsd_loss(
            z, torch.tensor(teacher), labels, beta=beta, temperature=2.0, reduction="sum"
        )
        found.backward()
        loss = partial(o.distillation, teacher=teacher, loss_mask=on.astype(np.float32), temperature=2.0, beta=beta)
        value, grad = jax.value_and_grad(lambda s, f=loss: f(s)[0])(student)
        np.testing.assert_allclose(value, 4 * found.item(), rtol=1e-5)
        np.testing.assert_allclose(grad, 4 * z.grad.numpy(), atol=1e-5)
    logs = [torch.log_softmax(torch.tensor(x) / 2, -1) for x in (student, teacher)]
    kl = 4 * torch.nn.functional.kl_div(*logs, reduction="none", log_target=True).sum(-1)
    np.testing.assert_allclose(o.divergence(student, teacher, temperature=2.0), kl.numpy(), atol=1e-5)
