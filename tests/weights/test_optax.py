"""Transforms of optax over our labels: freezing, rates and decay by group, soft prompts only, by plain arithmetic."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import weights
from research.core import tree
from research.training import optim
from tests.models.conftest import tiny

RATE, DECAY, STEPS = 0.1, 0.3, 3


def adapted(recipe):
    model, params = tiny("llama")
    return weights.attach(params, recipe, jax.random.key(0), config=model.config)


def gradients(params):
    rng = np.random.default_rng(0)
    one = lambda: jax.tree.map(lambda w: rng.normal(size=w.shape).astype(np.float32), params)  # noqa: E731
    return [one() for _ in range(STEPS)]


def run(transform, params, grads):
    state, update = transform.init(params), jax.jit(transform.update)
    for g in grads:
        updates, state = update(g, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return {path: np.asarray(w) for path, w in tree.paths(params).items()}, state


def adamw(w, gs, rate, decay, b1=0.9, b2=0.95, eps=1e-8):
    """One weight, in float64."""
    w, m, v = np.asarray(w, np.float64), 0.0, 0.0
    for t, g in enumerate(np.asarray(gs, np.float64), start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w - rate * (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * w)
    return w


def check(found, params, grads, rate_of, decay_of):
    """Every weight is where plain AdamW of its own rate and decay brings it; of rate 0, where it was, to the bit."""
    before, series = tree.paths(params), [tree.paths(g) for g in grads]
    for path, w in before.items():
        if rate_of(path) == 0:
            np.testing.assert_array_equal(found[path], w, err_msg=path)
        else:
            expected = adamw(w, [g[path] for g in series], rate_of(path), decay_of(path))
            np.testing.assert_allclose(found[path], expected, rtol=1e-4, atol=2e-5, err_msg=path)


@pytest.mark.parametrize(
    ("recipe", "learns"),
    [
        ({"method": "lora", "rank": 2}, ("/a", "/b")),
        ({"method": "prompt", "length": 3}, ("embedding/prompt",)),  # soft prompts only
        ([{"method": "ia3"}, {"method": "norms"}], ("/gain", "norm/scale")),
    ],
    ids=["lora", "soft prompt", "two methods"],
)
def test_partition_freezes_what_the_labels_say_and_keeps_no_moments_of_it(recipe, learns):
    params = adapted(recipe)
    labels = weights.labels(params, recipe)
    rule = optax.adamw(RATE, b2=0.95, weight_decay=0.0)
    transform = optax.partition({"train": rule, "freeze": optax.set_to_zero()}, labels)
    grads = gradients(params)
    found, state = run(transform, params, grads)
    on = lambda path: path.endswith(learns)  # noqa: E731
    assert any(map(on, found))
    check(found, params, grads, lambda path: RATE * on(path), lambda path: 0.0)
    # The step of training takes the frozen part away instead: the same weights, the same number of moments.
    mask = weights.trainable(params, recipe)
    learning = tree.split(params, mask)[0]
    ours = optim.make({"name": "adamw", "learning_rate": RATE, "schedule": "constant", "clip": None}, learning)
    alone, kept = run(ours, learning, [tree.split(g, mask)[0] for g in grads])
    assert set(alone) == {path for path in found if on(path)}
    chex.assert_trees_all_close(alone, {path: found[path] for path in alone}, rtol=1e-5, atol=1e-6)
    moments = [sum(x.size for x in jax.tree.leaves(s) if jnp.ndim(x)) for s in (state, kept)]
    assert moments[0] == moments[1] == 2 * tree.count(learning)


def test_rates_and_decay_by_group_are_those_of_partition_and_masked():
    recipe = [{"method": "lora", "rank": 2}, {"method": "norms"}]
    params = adapted(recipe)
    learning = tree.split(params, weights.trainable(params, recipe))[0]
    grads = gradients(learning)
    rates = {"fast": 4 * RATE, "slow": RATE / 10, "usual": RATE}
    groups = tree.assign(learning, [(r".*/b", "fast"), (r".*norm/scale", "slow")], default="usual")
    decays = tree.assign(learning, [(r".*norm/scale", False)], default=True)  # neither norms nor biases
    theirs, _ = run(
        optax.chain(
            optax.scale_by_adam(b2=0.95),
            optax.masked(optax.add_decayed_weights(DECAY), decays),
            optax.partition({name: optax.scale(-rate) for name, rate in rates.items()}, groups),
        ),
        learning,
        grads,
    )
    rule = {"name": "adamw", "learning_rate": RATE, "schedule": "constant", "clip": None, "weight_decay": DECAY}
    rule["rate_groups"] = [(r".*/b", 4.0), (r".*norm/scale", 0.1)]
    ours, _ = run(optim.make(rule, learning), learning, grads)
    by_path = tree.paths(groups)
    check(ours, learning, grads, lambda p: rates[by_path[p]], lambda p: DECAY * (not p.endswith("norm/scale")))
    chex.assert_trees_all_close(theirs, ours, rtol=1e-5, atol=1e-6)
