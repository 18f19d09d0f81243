import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.core import tree
from research.training import optim
from tests.training import toy

RATE, STEPS = 0.05, 4


def gradients(like, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape), jnp.float32), like)


def run(config, params, grads):
    """Weights after the given gradients, one update each."""
    optimizer = optim.make({"learning_rate": RATE, "schedule": "constant", "clip": None, **config}, params)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for g in grads:
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params


# Independent loops in float64: one matrix w, gradients gs.
def adamw(w, gs, b1=0.9, b2=0.95, eps=1e-8, decay=0.0):
    m = v = np.zeros_like(w)
    for t, g in enumerate(gs, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w - RATE * (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * w)
    return w


def lion(w, gs, b1=0.9, b2=0.99, decay=0.0):
    m = np.zeros_like(w)
    for g in gs:
        w, m = w - RATE * (np.sign(b1 * m + (1 - b1) * g) + decay * w), b2 * m + (1 - b2) * g
    return w


def sgd(w, gs, momentum=0.0, nesterov=False, decay=0.0):
    m = np.zeros_like(w)
    for g in gs:
        m = momentum * m + g
        w = w - RATE * ((g + momentum * m if nesterov else m) + decay * w)
    return w


def adafactor(w, gs, factored, decay=0.0):
    row, column, full = np.zeros(w.shape[0]), np.zeros(w.shape[1]), np.zeros_like(w)
    for t, g in enumerate(gs, 1):
        beta, square = 1 - t**-0.8, g * g + 1e-30
        row = beta * row + (1 - beta) * square.mean(1)
        column = beta * column + (1 - beta) * square.mean(0)
        full = beta * full + (1 - beta) * square
        u = g / np.sqrt(np.outer(row, column) / row.mean() if factored else full)
        u = u / max(1.0, np.sqrt((u * u).mean()))
        w = w - RATE * (u * max(np.sqrt((w * w).mean()), 1e-3) + decay * w)
    return w


def muon(w, gs, beta=0.95, decay=0.0):
    m = np.zeros_like(w)
    for t, g in enumerate(gs, 1):
        m = beta * m + (1 - beta) * g
        x = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        flip = x.shape[0] > x.shape[1]
        x = x.T if flip else x
        x = x / np.linalg.norm(x)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        x = x.T if flip else x
        w = w - RATE * (0.2 * np.sqrt(max(x.shape)) * x + decay * w)
    return w


CASES = {
    "adamw": ({"name": "adamw", "b1": 0.8, "b2": 0.9}, lambda w, gs, d: adamw(w, gs, 0.8, 0.9, decay=d)),
    "lion": ({"name": "lion"}, lambda w, gs, d: lion(w, gs, decay=d)),
    "sgd": ({"name": "sgd"}, lambda w, gs, d: sgd(w, gs, decay=d)),
    "momentum": ({"name": "sgd", "momentum": 0.9}, lambda w, gs, d: sgd(w, gs, 0.9, decay=d)),
    "nesterov": (
        {"name": "sgd", "momentum": 0.9, "nesterov": True},
        lambda w, gs, d: sgd(w, gs, 0.9, True, decay=d),
    ),
    "adafactor": ({"name": "adafactor"}, lambda w, gs, d: adafactor(w, gs, False, decay=d)),
    "factored": ({"name": "adafactor", "min_dim": 2}, lambda w, gs, d: adafactor(w, gs, True, decay=d)),
    "muon": ({"name": "muon"}, lambda w, gs, d: muon(w, gs, decay=d)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_equals_an_independent_loop(case, decay):
    config, reference = CASES[case]
    params = {"decoder": {"layers": {"00": {"kernel": toy.params()["decoder"]["layers"]["00"]["mlp"]["up"]["kernel"]}}}}
    grads = [gradients(params, i) for i in range(STEPS)]
    got = run(config | {"weight_decay": decay}, params, grads)
    kernel = lambda t, i: np.asarray(t["decoder"]["layers"]["00"]["kernel"][i], np.float64)  # noqa: E731
    for layer in range(toy.LAYERS):
        want = reference(kernel(params, layer), [kernel(g, layer) for g in grads], decay)
        np.testing.assert_allclose(kernel(got, layer), want, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_update_of_a_stack_is_the_stack_of_updates(case):
    config = CASES[case][0] | {"weight_decay": 0.1}
    params = toy.params()
    grads = [gradients(params, i) for i in range(2)]
    stacked = run(config, params, grads)
    single = run(config, tree.unstack(params), [tree.unstack(g) for g in grads])
    chex.assert_trees_all_close(tree.unstack(stacked), single, atol=1e-6)


def test_muon_takes_only_matrices_inside_layers():
    params = toy.params()
    params["decoder"]["layers"]["00"]["mlp"]["up"]["bias"] += 0.3
    grads = [gradients(params, 0)]
    by_muon, by_adam = (run({"name": name}, params, grads) for name in ("muon", "adamw"))
    same = jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, atol=1e-7)), by_muon, by_adam)
    assert tree.paths(same) == {
        "decoder/layers/00/mlp/down/kernel": False,
        "decoder/layers/00/mlp/up/bias": True,
        "decoder/layers/00/mlp/up/kernel": False,
        "embed/tokens/embedding": True,
    }


def test_only_matrices_of_one_layer_decay_by_default():
    params = toy.params()
    zero = jax.tree.map(jnp.zeros_like, params)
    after = run({"name": "sgd", "weight_decay": 0.5}, params, [zero])
    ratio = {p: float(jnp.mean(x / tree.paths(params)[p])) for p, x in tree.paths(after).items()}
    assert ratio.pop("decoder/layers/00/mlp/up/bias") == 1.0  # [L, F] looks like a matrix and is none
    assert list(ratio.values()) == pytest.approx([1 - RATE * 0.5] * 3)


def test_groups_first_match_wins_and_the_rest_keeps_one():
    params = toy.params()
    ones = jax.tree.map(jnp.ones_like, params)
    groups = [("decoder/layers/mlp/up/kernel", 0.0), ("decoder/.*kernel", 3.0)]
    after = run({"name": "sgd", "rate_groups": groups}, params, [ones])
    moved = {p: float(jnp.mean(tree.paths(params)[p] - x) / RATE) for p, x in tree.paths(after).items()}
    want = {"down/kernel": 3.0, "up/bias": 1.0, "up/kernel": 0.0, "embedding": 1.0}
    assert {p.split("/mlp/")[-1].removeprefix("embed/tokens/"): v for p, v in moved.items()} == pytest.approx(want)
    decayed = run(
        {"name": "sgd", "weight_decay": 0.5, "decay_groups": [(".*bias", 1.0), (".*", 0.0)]},
        params,
        [jax.tree.map(jnp.zeros_like, params)],
    )
    changed = [p for p, x in tree.paths(decayed).items() if not np.array_equal(x, tree.paths(params)[p])]
    assert changed == ["decoder/layers/00/mlp/up/bias"]


def test_gradients_are_clipped_by_their_global_norm():
    params = toy.params()
    g = gradients(params, 0)
    norm = float(np.sqrt(sum((np.asarray(x, np.float64) ** 2).sum() for x in jax.tree.leaves(g))))
    after = run({"name": "sgd", "clip": norm / 2}, params, [g])
    chex.assert_trees_all_close(after, jax.tree.map(lambda w, x: w - RATE * x / 2, params, g), atol=1e-6)
    after = run({"name": "sgd", "clip": norm * 2}, params, [g])
    chex.assert_trees_all_close(after, jax.tree.map(lambda w, x: w - RATE * x, params, g), atol=1e-6)


def test_reports_the_rate_it_uses():
    optimizer = optim.make({"name": "sgd", "learning_rate": 0.5, "warmup": 4, "clip": None}, toy.params(), steps=10)
    params = toy.params()
    state = optimizer.init(params)
    ones = jax.tree.map(jnp.ones_like, params)
    for s in range(3):
        updates, state = optimizer.update(ones, state, params)
        assert -float(jax.tree.leaves(updates)[0].ravel()[0]) == pytest.approx(float(optimizer.learning_rate(s)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "adamv"}, "unknown optimizer 'adamv'.*adamw"),
        ({"name": "sgd", "b1": 0.9}, "'sgd' has no option 'b1'.*momentum"),
        ({"name": "adamw", "wieght_decay": 0.1}, "did you mean 'weight_decay'"),
        ({"rate_groups": [("encoder/.*", 0.1)]}, "matches no weight.*embed/tokens/embedding"),
        ({"decay_groups": [(".*/kernle", 0.1)]}, "matches no weight.*mlp/up/kernel"),
    ],
)
def test_refuses(config, message):
    with pytest.raises(ValueError, match=message):
        optim.make(config, toy.params(), steps=10)


def test_muon_without_layers_is_refused():
    with pytest.raises(ValueError, match="matrices inside layers"):
        optim.make({"name": "muon"}, {"w": jnp.ones((3, 3))}, steps=1)
