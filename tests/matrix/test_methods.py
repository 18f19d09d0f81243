"""Every method on every family: what is promised of all of them, checked on tiny models."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import weights
from research.core import tree
from research.data.virtual import prepend
from research.interop.run import config_to_dict, load_run
from research.models import build
from research.recipes.pretrain import language_model_loss
from research.training import optim
from research.training.checkpoint import Checkpoints
from research.training.state import create
from research.training.step import make_step
from research.weights.prompts import virtual_ids
from tests.models.conftest import tiny
from tests.parity.zoo import quick_jit

RECIPES = {
    "full": {"method": "full"},
    "select": {"method": "select", "target": ".*mlp/.*", "layers": [1, 2]},
    "bitfit": {"method": "bitfit"},
    "norms": {"method": "norms"},
    "last_layers": {"method": "last_layers", "count": 2},
    "lora": {"method": "lora", "rank": 3, "target": ".*/(attention|cross|mlp)/\\w+/kernel"},
    "lora_some_layers": {"method": "lora", "rank": 2, "layers": [1, 3]},
    "rslora": {"method": "rslora", "rank": 4},
    "dora": {"method": "dora", "rank": 2},
    "houlsby": {"method": "houlsby", "width": 5},
    "ia3": {"method": "ia3"},
    "prompt": {"method": "prompt", "length": 3},
    "p_tuning": {"method": "p_tuning", "length": 3, "hidden": 6},
    "prefix": {"method": "prefix", "length": 3},
    "nested": [{"method": "ia3", "name": "inner"}, {"method": "lora", "rank": 2, "name": "outer"}, {"method": "norms"}],
}
# One of each kind through everything; two more, with what is special about them (learned positions, biases).
CASES = [(f, m) for f in ("bert", "llama", "bart") for m in RECIPES if not (m == "bitfit" and f == "llama")]
CASES += [(f, m) for f in ("gpt2", "t5-v1.1") for m in ("lora", "prefix", "nested")]
PROMPTS = ("prompt", "p_tuning")
UNROLLED = ("bert", "gpt2")  # these train with their layers unrolled, the others scan them: every method does both


@functools.cache
def forward(family):
    """One program per family and structure of weights: the base is compiled once for all methods."""
    model, _ = tiny(family)
    return quick_jit(lambda p, b: model.apply(p, b).hidden)


def unrolled(model, params, batch, **options):
    """The layers one by one, each operation by itself: no program to compile, and another order of the same sums."""
    return model.apply(tree.unstack(params), {k: jnp.asarray(v) for k, v in batch.items()}, **options)


def adapted(family, method, seed=0):
    model, params = tiny(family)
    return model, params, weights.attach(params, RECIPES[method], jax.random.key(seed), config=model.config)


def batch_of(model, params, seed=3, rows=2, length=9):
    rng, V = np.random.default_rng(seed), model.config.vocab_size
    batch = {"tokens": rng.integers(3, V, (rows, length)).astype(np.int32)}
    if model.config.kind == "encoder_decoder":
        batch["inputs"] = rng.integers(3, V, (rows, length - 2)).astype(np.int32)
    ids = virtual_ids(params)
    batch = prepend(batch, ids) if ids else batch
    targets, mask = rng.integers(3, V, batch["tokens"].shape), np.ones(batch["tokens"].shape, np.float32)
    if ids and "inputs" not in batch:
        mask[:, : len(ids)] = 0
    return batch | {"targets": targets.astype(np.int32), "loss_mask": mask}


def close(ours, theirs, tolerance=1e-5):
    """Equal up to float32's rounding, measured by the largest number: sums of 48 terms in another order."""
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def inputs_of(batch):
    return {name: array for name, array in batch.items() if name not in ("targets", "loss_mask")}


def shaken(params, recipe, seed=7):
    """Noise on what learns, so that adapters no longer do nothing."""
    rng = np.random.default_rng(seed)
    noisy = lambda w: w + (0.1 * rng.normal(size=w.shape)).astype(np.float32)  # noqa: E731
    return jax.tree.map(lambda w, on: noisy(w) if on else w, params, weights.trainable(params, recipe))


@pytest.mark.parametrize(("family", "method"), CASES)
def test_starts_at_the_base_and_merged_equals_attached(family, method):
    model, base, params = adapted(family, method)
    run, batch = forward(family), inputs_of(batch_of(model, params))
    if method not in (*PROMPTS, "prefix"):
        close(run(params, batch), run(base, batch))
    moved = shaken(params, RECIPES[method])
    attached = run(moved, batch)
    assert np.abs(attached - run(params, batch)).max() > 1e-3
    if method == "houlsby":
        with pytest.raises(ValueError, match="is not linear"):
            weights.merge(moved)
    else:
        merged = weights.merge(moved)
        close(run(merged, batch), attached)
        if method not in PROMPTS:
            assert not weights.names(merged)
    close(unrolled(model, moved, batch).hidden, attached)
    if method not in ("full", "select", "bitfit", "norms", "last_layers", "nested"):
        chex.assert_trees_all_equal(tree.unstack(weights.strip(moved)), tree.unstack(base))


@pytest.mark.parametrize(("family", "method"), CASES)
def test_trains_only_its_own_part_and_is_restored_from_it(family, method, tmp_path):
    _, _, params = adapted(family, method)
    model, recipe = build(tiny(family)[0].config, unroll=family in UNROLLED), RECIPES[method]
    mask = weights.trainable(params, recipe)
    learning = tree.split(params, mask)[0]
    optimizer = optim.make({"name": "sgd", "learning_rate": 0.5, "schedule": "constant", "clip": None}, learning)
    state, frozen = create(params, optimizer, rng=jax.random.key(3), trainable=mask)
    chex.clear_trace_counter()
    step = quick_jit(chex.assert_max_traces(n=1)(make_step(language_model_loss(model, chunk=16), optimizer).update))
    batch = batch_of(model, params)
    for _ in range(2):
        state, metrics = step(state, frozen, batch)
    assert np.isfinite(metrics["loss"])
    before, after = tree.paths(params), tree.paths(tree.merge(state.params, frozen))
    on = tree.paths(mask)
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed and changed <= {path for path in on if on[path]}

    stored = {"model": config_to_dict(model.config), "peft": weights.describe(recipe)}
    with Checkpoints(tmp_path, config=stored) as checkpoints:
        checkpoints.keep_frozen(frozen)
        checkpoints.save(state)
    assert set(tree.paths(state.params)) == {path for path in on if on[path]}
    config, loaded, _ = load_run(tmp_path)
    assert config == model.config
    chex.assert_trees_all_equal(loaded, tree.merge(state.params, frozen))


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5-v1.1", "bart"])
@pytest.mark.parametrize("method", ["lora", "prompt", "prefix", "houlsby"])
def test_cached_decoding_equals_the_full_forward(family, method):
    model, _, params = adapted(family, method)
    params = shaken(params, RECIPES[method])
    batch = inputs_of(batch_of(model, params))
    T = batch["tokens"].shape[1]
    full = forward(family)(params, batch)
    cache, pieces = model.start(tree.unstack(params), {k: jnp.asarray(v) for k, v in batch.items()}, T), []
    for first, stop in ((0, T - 3), (T - 3, T - 2), (T - 2, T - 1), (T - 1, T)):
        out = unrolled(model, params, {"tokens": batch["tokens"][:, first:stop]}, cache=cache)
        cache = out.cache
        pieces.append(out.hidden)
    close(jnp.concatenate(pieces, 1), full)


def test_the_two_labels_freeze_through_optax_partition():
    _, _, params = adapted("llama", "lora")
    labels = weights.labels(params, RECIPES["lora"])
    transform = optax.partition({"train": optax.sgd(0.1), "freeze": optax.set_to_zero()}, labels)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = transform.update(grads, transform.init(params), params)
    for path, update in tree.paths(updates).items():
        assert (np.abs(update).max() > 0) == path.endswith(("/a", "/b")), path
