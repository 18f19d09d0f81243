"""Every method on every family: what is promised of all of them, checked on tiny models."""

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
from research.recipes.pretrain import language_model_loss
from research.training import optim
from research.training.checkpoint import Checkpoints
from research.training.state import create
from research.training.step import make_step
from research.weights.prompts import virtual_ids
from tests.models.conftest import tiny
from tests.models.test_model import batch_for
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


def adapted(family, method, seed=0):
    model, params = tiny(family)
    return model, params, weights.attach(params, RECIPES[method], jax.random.key(seed), config=model.config)


def batch_of(model, params, seed=3):
    batch = batch_for(model, seed=seed)
    ids = virtual_ids(params)
    batch = prepend(batch, ids) if ids else batch
    targets = jax.random.randint(jax.random.key(seed + 5), batch["tokens"].shape, 3, model.config.vocab_size)
    mask = np.ones(targets.shape, np.float32)
    if ids and "inputs" not in batch:
        mask[:, : len(ids)] = 0
    return {name: np.asarray(a) for name, a in batch.items()} | {"targets": np.asarray(targets), "loss_mask": mask}


def shaken(params, recipe, seed=7):
    """Noise on what learns, so that adapters no longer do nothing."""
    mask = weights.trainable(params, recipe)
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noisy = [
        w + 0.2 * jax.random.normal(k, w.shape) if on else w
        for w, k, on in zip(leaves, keys, jax.tree.leaves(mask), strict=True)
    ]
    return jax.tree.unflatten(structure, noisy)


@pytest.mark.parametrize(("family", "method"), CASES)
def test_starts_at_the_base_and_merged_equals_attached(family, method):
    model, base, params = adapted(family, method)
    batch = batch_of(model, params)
    plain = {k: v for k, v in batch.items() if k not in ("targets", "loss_mask")}
    run = quick_jit(lambda p, b: model.apply(p, b).hidden)
    if method not in (*PROMPTS, "prefix"):
        np.testing.assert_allclose(run(params, plain), run(base, plain), rtol=1e-5, atol=1e-5)
    moved = shaken(params, RECIPES[method])
    attached = run(moved, plain)
    assert np.abs(attached - run(params, plain)).max() > 1e-3
    if method == "houlsby":
        with pytest.raises(ValueError, match="is not linear"):
            weights.merge(moved)
    else:
        merged = weights.merge(moved)
        np.testing.assert_allclose(run(merged, plain), attached, rtol=1e-4, atol=5e-5)
        if method not in PROMPTS:
            assert not weights.names(merged)
    np.testing.assert_allclose(run(tree.unstack(moved), plain), attached, rtol=1e-4, atol=5e-5)
    if method not in ("full", "select", "bitfit", "norms", "last_layers", "nested"):
        chex.assert_trees_all_equal(tree.unstack(weights.strip(moved)), tree.unstack(base))


@pytest.mark.parametrize(("family", "method"), CASES)
def test_trains_only_its_own_part_and_is_restored_from_it(family, method, tmp_path):
    model, _, params = adapted(family, method)
    recipe = RECIPES[method]
    mask = weights.trainable(params, recipe)
    learning = tree.split(params, mask)[0]
    optimizer = optim.make({"name": "sgd", "learning_rate": 0.5, "schedule": "constant", "clip": None}, learning)
    state, frozen = create(params, optimizer, rng=jax.random.key(3), trainable=mask)
    traced = chex.assert_max_traces(n=1)(language_model_loss(model, chunk=4))
    chex.clear_trace_counter()
    step = make_step(traced, optimizer)
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
    params = tree.unstack(shaken(params, RECIPES[method]))
    batch = batch_of(model, params)
    batch = {k: jnp.asarray(v) for k, v in batch.items() if k in ("tokens", "inputs", "input_segment_ids")}
    T = batch["tokens"].shape[1]
    full = quick_jit(lambda p: model.apply(p, batch).hidden)(params)
    step = quick_jit(lambda p, tokens, cache: model.apply(p, {"tokens": tokens}, cache=cache))
    out = step(params, batch["tokens"][:, :4], model.start(params, batch, T))
    pieces = [out.hidden]
    for t in range(4, T):
        out = step(params, batch["tokens"][:, t : t + 1], out.cache)
        pieces.append(out.hidden)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), full, rtol=1e-4, atol=1e-4)


def test_the_two_labels_freeze_through_optax_partition():
    _, _, params = adapted("llama", "lora")
    labels = weights.labels(params, RECIPES["lora"])
    transform = optax.partition({"train": optax.sgd(0.1), "freeze": optax.set_to_zero()}, labels)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = transform.update(grads, transform.init(params), params)
    for path, update in tree.paths(updates).items():
        assert (np.abs(update).max() > 0) == path.endswith(("/a", "/b")), path
