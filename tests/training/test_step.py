import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core import tree
from research.training import optim
from research.training.state import create
from research.training.step import make_step
from tests.training import toy

SGD = {"name": "sgd", "learning_rate": 0.1, "schedule": "constant", "clip": None}


def begin(config=SGD, trainable=None):
    params = toy.params()
    mask = None if trainable is None else tree.select(params, trainable)
    optimizer = optim.make(config, params if mask is None else tree.split(params, mask)[0], steps=10)
    return *create(params, optimizer, rng=jax.random.key(3), trainable=mask), optimizer


def test_one_step_of_sgd_is_the_gradient_of_the_mean():
    state, frozen, optimizer = begin()
    params, batch = toy.params(), toy.batch()
    mean = lambda p: toy.quiet_loss(p, batch, None)[0] / batch["loss_mask"].sum()  # noqa: E731
    value, grads = jax.value_and_grad(mean)(params)
    state, metrics = make_step(toy.quiet_loss, optimizer)(state, frozen, batch)
    chex.assert_trees_all_close(state.params, jax.tree.map(lambda w, g: w - 0.1 * g, params, grads), atol=1e-6)
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads)))
    expected = {"loss": value, "squared": value, "weight": batch["loss_mask"].sum(), "grad_norm": norm}
    for name, want in {**expected, "learning_rate": 0.1}.items():
        np.testing.assert_allclose(metrics[name], want, rtol=1e-5, err_msg=name)
    assert int(state.step) == 1


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_is_the_big_batch(accumulate):
    batch = toy.batch(rows=4)
    batch["loss_mask"][1] = 0.0  # micro-batches of different weights: a mean of means would differ
    one, frozen, optimizer = begin({"name": "adamw", "learning_rate": 0.01})
    many, _, _ = begin({"name": "adamw", "learning_rate": 0.01})
    one, m1 = make_step(toy.quiet_loss, optimizer)(one, frozen, batch)
    many, m2 = make_step(toy.quiet_loss, optimizer, accumulate=accumulate)(many, frozen, batch)
    chex.assert_trees_all_close(one.params, many.params, atol=1e-6)
    chex.assert_trees_all_close(m1, m2, rtol=1e-5)


def test_padding_changes_nothing():
    batch = toy.batch()
    padded = {name: np.pad(array, ((0, 2), (0, 3))) for name, array in batch.items()}
    results = []
    for given in (batch, padded):
        state, frozen, optimizer = begin()
        state, metrics = make_step(toy.quiet_loss, optimizer)(state, frozen, given)
        results.append((state.params, metrics))
    chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_is_traced_once(accumulate):
    state, frozen, optimizer = begin()
    step = make_step(toy.loss, optimizer, accumulate=accumulate)
    chex.clear_trace_counter()
    step.update = chex.assert_max_traces(step.update, n=1)
    for n in range(3):
        state, _ = step(state, frozen, toy.batch(n))
    assert int(state.step) == 3


def test_frozen_weights_stay_and_have_no_moments():
    state, frozen, optimizer = begin({"name": "adamw"}, trainable="decoder/layers/mlp/up/.*")
    start = toy.params()
    assert tree.count(state.opt_state) < tree.count(start)
    state, _ = make_step(toy.loss, optimizer)(state, frozen, toy.batch())
    merged = tree.paths(tree.merge(state.params, frozen))
    moved = [path for path, w in tree.paths(start).items() if not np.array_equal(w, merged[path])]
    assert moved == ["decoder/layers/00/mlp/up/bias", "decoder/layers/00/mlp/up/kernel"]


def test_noise_depends_on_the_step_and_the_seed_alone():
    def losses():
        state, frozen, optimizer = begin({**SGD, "learning_rate": 1e-30})
        step = make_step(toy.loss, optimizer)
        out = []
        for _ in range(2):
            state, metrics = step(state, frozen, toy.batch())
            out.append(float(metrics["loss"]))
        return out

    first, second = losses(), losses()
    assert first == second
    assert first[0] != first[1]


def test_state_is_donated_and_the_callers_weights_live_on():
    params = toy.params()
    optimizer = optim.make(SGD, params)
    state, frozen = create(params, optimizer, rng=jax.random.key(0))
    make_step(toy.loss, optimizer)(state, frozen, toy.batch())
    assert state.params["embed"]["tokens"]["embedding"].is_deleted()
    jax.block_until_ready(jax.tree.map(jnp.sum, params))


def test_lowers_without_running():
    state, frozen, optimizer = begin()
    assert "dot" in make_step(toy.loss, optimizer).lower(state, frozen, toy.batch()).as_text()
    assert int(state.step) == 0


def test_bad_batches_are_refused_on_the_host():
    state, frozen, optimizer = begin()
    masked = toy.batch() | {"loss_mask": np.zeros((4, 5), np.float32)}
    with pytest.raises(ValueError, match="every one of the 20 positions of the batch is masked"):
        make_step(toy.loss, optimizer)(state, frozen, masked)
    with pytest.raises(ValueError, match="4 rows, which do not split into 3 micro-batches"):
        make_step(toy.loss, optimizer, accumulate=3)(state, frozen, toy.batch())
    with pytest.raises(ValueError, match="empty"):
        make_step(toy.loss, optimizer)(state, frozen, {})
    with pytest.raises(ValueError, match="at least 1, given 0"):
        make_step(toy.loss, optimizer, accumulate=0)
    with pytest.raises(ValueError, match="nothing to train"):
        create(toy.params(), optimizer, rng=jax.random.key(0), trainable=jax.tree.map(lambda _: False, toy.params()))
