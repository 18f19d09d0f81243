"""Pruning against plain numpy: who goes, what the rest becomes, and that zeros stay zeros while the rest learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import weights
from research.core import tree
from research.models import build
from research.recipes.pretrain import language_model_loss
from research.weights.calibrate import Statistic
from research.weights.prune import Pruner, Wanda, gradual, sparse_gpt
from research.weights.pruned import Pruned, sparsity
from research.weights.quantize import quantize
from tests.models.conftest import tiny

O, I = 6, 12
UP = r".*/mlp/up/kernel"


def statistic(x, layers=None):
    """The facts about inputs [n, I]."""
    gram = (x.T @ x).astype(np.float32)
    zeros = np.zeros(3, np.float32)
    made = Statistic(gram, np.abs(x).max(0), np.abs(x).sum(0), zeros, np.float32(len(x)))
    return jax.tree.map(lambda a: jnp.stack([jnp.asarray(a)] * layers) if layers else jnp.asarray(a), made)


def matrix(seed, shape=(I, O)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def masked(method, kernel, facts=None):
    tree_of = {"x": {"kernel": jnp.asarray(kernel)}}
    statistics = None if facts is None else {"x/kernel": facts}
    return method.attach(tree_of, jax.random.key(0), statistics)["x"]["kernel"]


def numpy_sparse_gpt(rows, gram, share, pattern, damping, block):
    """The published algorithm, one column after the other."""
    w, n = rows.astype(np.float64).copy(), rows.shape[1]
    h = gram.astype(np.float64).copy()
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    w[:, dead] = 0
    h += damping * np.mean(np.diag(h)) * np.eye(n)
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    keep = np.ones_like(w, bool)
    for start in range(0, n, block):
        stop = min(start + block, n)
        if pattern is None:
            score = (w[:, start:stop] / np.diag(u)[start:stop]) ** 2
            gone = np.argsort(score.reshape(-1), kind="stable")[: round(share * score.size)]
            flat = np.ones(score.size, bool)
            flat[gone] = False
            keep[:, start:stop] = flat.reshape(score.shape)
        for j in range(start, stop):
            if pattern is not None and j % pattern[1] == 0:
                part = slice(j, j + pattern[1])
                order = np.argsort((w[:, part] / np.diag(u)[part]) ** 2, axis=1, kind="stable")
                for row in range(len(w)):
                    keep[row, j + order[row, : pattern[1] - pattern[0]]] = False
            new = np.where(keep[:, j], w[:, j], 0)
            w[:, j:] -= np.outer((w[:, j] - new) / u[j, j], u[j, j:])
            w[:, j] = new
    return keep, w


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("share", "pattern", "size"), [(0.5, None, 200), (0.3, None, 130), (0.5, (2, 4), 136), (0.5, (4, 8), 16)]
)
def test_sparse_gpt_is_the_published_algorithm(seed, share, pattern, size):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(400, size)) @ rng.normal(size=(size, size)) * rng.uniform(0.1, 3, size)
    x[:, 3] = 0
    gram, rows = (x.T @ x / 400).astype(np.float32), matrix(seed, (5, size))
    keep, moved = (np.asarray(a) for a in sparse_gpt(rows, gram, sparsity=share, pattern=pattern, damping=0.1))
    kept, wanted = numpy_sparse_gpt(rows, gram, share, pattern, 0.1, 128)
    assert (keep == kept).mean() > 0.997  # a near-tie may fall the other way in float32
    if (keep == kept).all():
        np.testing.assert_allclose(moved, wanted, atol=2e-3)
    error = lambda new: np.einsum("oi,ij,oj->", rows - new, gram, rows - new)  # noqa: E731
    by_size = Pruner(sparsity=share, pattern="{}:{}".format(*pattern) if pattern else "", target=".*")
    assert error(moved) < 0.9 * error(np.where(np.asarray(masked(by_size, rows.T).mask).T, rows, 0))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
def test_magnitude(share):
    kernel = matrix(0)
    count = round(share * kernel.size)
    order = np.argsort(np.abs(kernel.T).reshape(-1), kind="stable")
    wanted = np.ones(kernel.size, bool)
    wanted[order[:count]] = False
    found = masked(Pruner(sparsity=share, target=".*"), kernel)
    np.testing.assert_array_equal(np.asarray(found.mask).T.reshape(-1), wanted)
    by_row = np.asarray(masked(Pruner(sparsity=share, target=".*", scope="row"), kernel).mask)
    assert (I - by_row.sum(0) == round(share * I)).all()


def test_wanda_compares_weights_times_inputs_within_an_output():
    kernel, x = matrix(1), np.random.default_rng(2).normal(size=(40, I)) * np.arange(1, I + 1)
    score = np.abs(kernel) * np.linalg.norm(x, axis=0)[:, None]
    wanted = np.ones((I, O), bool)
    for o in range(O):
        wanted[np.argsort(score[:, o], kind="stable")[: I // 2], o] = False
    found = masked(Wanda(target=".*"), kernel, statistic(x))
    np.testing.assert_array_equal(np.asarray(found.mask), wanted)
    groups = np.asarray(masked(Wanda(target=".*", pattern="2:4"), kernel, statistic(x)).mask).T.reshape(O, -1, 4)
    assert (groups.sum(-1) == 2).all()
    low = np.where(groups, score.T.reshape(O, -1, 4), np.inf).min(-1)
    assert (low >= np.where(groups, -np.inf, score.T.reshape(O, -1, 4)).max(-1)).all()


def test_global_pruning_takes_the_smallest_of_all_weights():
    params = {"a": {"kernel": jnp.asarray(matrix(0))}, "b": {"kernel": 10 * jnp.asarray(matrix(1))}}
    found = Pruner(sparsity=0.5, target=".*", scope="global").attach(params, jax.random.key(0))
    every = np.abs(np.concatenate([matrix(0).reshape(-1), 10 * matrix(1).reshape(-1)]))
    floor = np.sort(every)[len(every) // 2 - 1]
    for name, kernel in (("a", matrix(0)), ("b", 10 * matrix(1))):
        np.testing.assert_array_equal(np.asarray(found[name]["kernel"].mask), np.abs(kernel) > floor)
    assert sparsity(found["a"]["kernel"]) > 0.7 > 0.3 > sparsity(found["b"]["kernel"])


def test_gradual_pruning_ends_where_it_should():
    values = [gradual(t, 10, 0.8, 0.1) for t in range(12)]
    assert values[0] == pytest.approx(0.1) and values[10] == values[11] == 0.8
    assert values[5] == pytest.approx(0.8 - 0.7 * 0.5**3) and values == sorted(values)


@pytest.fixture(scope="module")
def decoder():
    model, params = tiny("llama", n_layers=2)
    rng = np.random.default_rng(0)
    batch = {
        "tokens": rng.integers(3, 60, (4, 10)),
        "targets": rng.integers(3, 60, (4, 10)),
        "loss_mask": np.ones((4, 10)),
    }
    return model, params, {k: jnp.asarray(v, jnp.float32 if k == "loss_mask" else jnp.int32) for k, v in batch.items()}


RECIPES = {
    "full": [{"method": "wanda", "target": UP}, {"method": "full"}],
    "above": [{"method": "sparsegpt", "target": UP, "pattern": "2:4"}, {"method": "lora", "rank": 2, "target": UP}],
    "below": [{"method": "lora", "rank": 2, "target": UP}, {"method": "magnitude", "target": UP}],
}


@pytest.mark.parametrize("name", RECIPES)
def test_zeros_stay_while_the_rest_learns(decoder, name):
    model, params, batch = decoder
    recipe = RECIPES[name]
    run = lambda p, b: model.apply(p, b).hidden  # noqa: E731
    pruned = quantize(params, recipe, run=run, batches=[batch], key=jax.random.key(0))
    learns = weights.trainable(pruned, recipe)
    trained, frozen = tree.split(pruned, learns)
    loss_fn = language_model_loss(model)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(trained, state):
        loss, grads = jax.value_and_grad(lambda t: loss_fn(tree.merge(t, frozen), batch, None)[0])(trained)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(trained, updates), state, loss

    state, losses = optimizer.init(trained), []
    for _ in range(4):
        trained, state, loss = step(trained, state)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    after = tree.merge(trained, frozen)
    masks = lambda p: {k: v for k, v in tree.paths(p).items() if k.endswith("/mask")}  # noqa: E731
    assert masks(after).keys() == masks(pruned).keys() and masks(pruned)
    for path, mask in masks(pruned).items():
        np.testing.assert_array_equal(np.asarray(masks(after)[path]), np.asarray(mask))
    merged = tree.paths(weights.merge(after))
    (up,) = (np.asarray(v) for k, v in merged.items() if k.endswith("mlp/up/kernel"))
    zero = (up == 0).mean()
    assert zero == (0 if name == "above" else pytest.approx(0.5)), "LoRA above a mask fills it, below it does not"
    whole = model.apply(after, batch).hidden
    np.testing.assert_allclose(whole, model.apply(weights.merge(after), batch).hidden, atol=1e-5)


def test_shapes_are_known_without_weights(decoder):
    model, *_ = decoder
    for rule in ({"method": "magnitude", "scope": "global"}, {"method": "sparsegpt", "target": UP}):
        made = weights.structure(model.abstract(), rule)
        stored = {k: np.zeros(v.shape, v.dtype) for k, v in tree.paths(made).items()}
        assert isinstance(weights.restored(stored, model.abstract(), rule), dict)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"method": "magnitude", "sparsity": 1.0}, r"share in \[0, 1\); given 1.0"),
        ({"method": "magnitude", "sparsity": -0.1}, r"given -0.1"),
        ({"method": "magnitude", "pattern": "4:2"}, "0 < N < M"),
        ({"method": "magnitude", "pattern": "2:4", "sparsity": 0.3}, "prunes 0.5 by itself"),
        ({"method": "magnitude", "pattern": "2:5"}, "does not divide the 32 inputs"),
        ({"method": "magnitude", "scope": "rows"}, "did you mean 'row'"),
        ({"method": "wanda"}, "call `quantize` with `run`"),
        ({"method": "sparsegpt", "scope": "row"}, "block of columns"),
        ([{"method": "int8"}, {"method": "magnitude"}], "prune first"),
        ([{"method": "lora"}, {"method": "sparsegpt"}], "the adapter after it"),
    ],
)
def test_refusals(decoder, rule, words):
    with pytest.raises(ValueError, match=words):
        weights.attach(decoder[1], rule, jax.random.key(0), config=decoder[0].config)


def test_tables_and_outputs_of_a_masked_weight(decoder):
    model, params, batch = decoder
    recipe = {"method": "magnitude", "target": ["embed/tokens/embedding", "head/table/embedding"]}
    table = params.get("head", {}).get("table")
    recipe["target"] = [t for t in recipe["target"] if not t.startswith("head") or table is not None]
    pruned = weights.attach(params, recipe, jax.random.key(0))
    assert isinstance(pruned["embed"]["tokens"]["embedding"], Pruned)
    logits = lambda p: build(model.config).logits(p, model.apply(p, batch).hidden)  # noqa: E731
    np.testing.assert_allclose(logits(pruned), logits(weights.merge(pruned)), atol=1e-5)
