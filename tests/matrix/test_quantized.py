"""Quantized forms on every family: near the plain model, scanned, cached, under LoRA, stored, cut over a mesh."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import weights
from research.core import mesh as meshes
from research.core import tree
from research.interop.run import config_to_dict, load_run, save_run
from research.models import build
from research.recipes.pretrain import language_model_loss
from research.training import optim
from research.training.checkpoint import Checkpoints
from research.training.state import create
from research.training.step import make_step
from research.weights.quantize import packed_weights
from tests.models.conftest import tiny
from tests.models.test_model import batch_for
from tests.parity.zoo import quick_jit

TABLES = "embed/tokens/embedding"
EVERYTHING = [".*/layers/.*/kernel", TABLES]
# How far the hidden states may be from the plain model's, relative to their norm.
FORMS = {
    "int8": ({"method": "int8", "target": EVERYTHING}, 0.03),
    "int8_dynamic": ({"method": "int8_dynamic", "symmetric": False, "target": EVERYTHING}, 0.05),
    "nf4": ({"method": "nf4", "target": EVERYTHING, "block": 16}, 0.4),
    "mixed": (
        [{"method": "int8", "target": [".*/o/kernel", TABLES]}, {"method": "int4", "group": 16}],
        0.4,
    ),
}
LORA = {"method": "lora", "rank": 2, "target": ".*/(q|v|down)/kernel"}
FAMILIES = ("bert", "llama", "t5-v1.1")


def moved(params, recipe, seed=5):
    """Adapters that do something."""
    mask = weights.trainable(params, recipe)
    learning, frozen = tree.split(params, mask)
    noise = lambda path, w: w + 0.1 * jax.random.normal(jax.random.fold_in(jax.random.key(seed), len(path)), w.shape)  # noqa: E731
    return tree.merge(tree.map_with_path(noise, learning), frozen)


def examples(model, seed=3):
    batch = batch_for(model, rows=4, length=8, seed=seed)
    targets = jax.random.randint(jax.random.key(seed + 5), batch["tokens"].shape, 3, model.config.vocab_size)
    return batch | {"targets": targets, "loss_mask": jnp.ones(targets.shape)}


def small(family):
    """Two layers hold all that differs: one scanned run, and both unrolled."""
    return tiny(family, n_layers=2)


@functools.cache
def packed_form(family, form):
    """The form in one program, as far as it is one of arrays alone."""
    base = small(family)[1]
    return quick_jit(lambda p: weights.quantize(p, FORMS[form][0]))(base)


@functools.cache
def plain_run(family):
    """Hidden states of the family's batch; plain weights of all forms share a program."""
    model = small(family)[0]
    batch = batch_for(model)
    return quick_jit(lambda p: model.apply(p, batch).hidden)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stored_form_comes_back_bit_for_bit(family, tmp_path):
    """With its recipe and all that is static in it; "mixed" has two forms and another group."""
    model, packed = small(family)[0], packed_form(family, "mixed")
    _, loaded, meta = load_run(save_run(tmp_path, model.config, packed, FORMS["mixed"][0]))
    chex.assert_trees_all_equal(loaded, packed)
    assert jax.tree.structure(loaded) == jax.tree.structure(packed)
    assert [rule["method"] for rule in meta["config"]["peft"]] == ["int8", "int4"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_near_the_plain_model_and_the_same_scanned_or_not(family, form):
    base, far = small(family)[1], FORMS[form][1]
    packed, run = packed_form(family, form), plain_run(family)
    out = run(packed)
    # T5 does not scale its scores, so that with random weights its softmax is sharp and rounding moves it more.
    assert 1e-4 < weights.drift(run(base), out) < far * (2 if family == "t5-v1.1" else 1)
    if family == "llama" or form == "mixed":  # a form is scanned alike in every family
        np.testing.assert_allclose(
            run(tree.unstack(packed)), out, rtol=1e-3, atol=2e-2 if form == "int8_dynamic" else 1e-4
        )
    if form != "int8_dynamic":  # that one rounds activations too
        np.testing.assert_allclose(run(weights.dequantize(packed)), out, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_qlora_equals_lora_on_the_dequantized_base_trains_alone_and_is_stored(family, tmp_path):
    """Through scan and remat; the embedding, which is also llama's output layer, is packed too."""
    described, base = small(family)
    model = build(described.config, remat="full")
    recipe = [FORMS["nf4"][0], LORA]
    params = weights.attach(base, recipe, jax.random.key(1))
    shaken = moved(params, recipe)
    batch = examples(model)
    loss = language_model_loss(model, chunk=4)
    plain = weights.dequantize(shaken)
    np.testing.assert_allclose(
        *(quick_jit(lambda p: model.apply(p, batch).hidden)(p) for p in (shaken, plain)), rtol=1e-5, atol=1e-5
    )

    mask = weights.trainable(params, recipe)
    learning = tree.split(params, mask)[0]
    assert all(path.endswith(("/a", "/b")) for path in tree.paths(learning))
    optimizer = optim.make({"name": "sgd", "learning_rate": 0.5, "schedule": "constant", "clip": None}, learning)
    step = make_step(loss, optimizer)
    after = []
    for tree_ in (shaken, plain):
        state, frozen = create(tree_, optimizer, rng=jax.random.key(3), trainable=mask_of(tree_))
        state, metrics = step(state, frozen, batch)
        after.append((float(metrics["loss"]), state, frozen))
    (first, state, frozen), (second, other, _) = after
    assert first == pytest.approx(second, rel=1e-5)
    chex.assert_trees_all_close(jax.tree.leaves(state.params), jax.tree.leaves(other.params), rtol=1e-3, atol=1e-5)
    assert any(leaf.dtype == jnp.uint8 for leaf in jax.tree.leaves(frozen))

    stored = {"model": config_to_dict(model.config), "peft": weights.describe(recipe)}
    with Checkpoints(tmp_path, config=stored) as checkpoints:
        checkpoints.keep_frozen(frozen)
        checkpoints.save(state)
    _, loaded, _ = load_run(tmp_path)
    chex.assert_trees_all_equal(loaded, tree.merge(state.params, frozen))


def mask_of(params):
    return tree.map_with_path(lambda path, _: path.endswith(("/a", "/b")), params)


@pytest.mark.parametrize("form", ["int8_dynamic", "nf4"])
def test_cached_decoding_equals_the_full_forward(form):
    model, _ = small("llama")
    params = tree.unstack(packed_form("llama", form))
    tokens = batch_for(model)["tokens"]
    full = quick_jit(lambda p: model.apply(p, {"tokens": tokens}).hidden)(params)
    step = quick_jit(lambda p, tokens, cache: model.apply(p, {"tokens": tokens}, cache=cache))
    out = step(params, tokens[:, :4], model.start(params, {"tokens": tokens}, tokens.shape[1]))
    pieces = [out.hidden]
    for t in range(4, tokens.shape[1]):
        out = step(params, tokens[:, t : t + 1], out.cache)
        pieces.append(out.hidden)
    # A token's own scale does not depend on the others, but a tie may be rounded to either side.
    np.testing.assert_allclose(
        jnp.concatenate(pieces, 1), full, rtol=1e-3, atol=5e-2 if form == "int8_dynamic" else 1e-4
    )


def test_merging_says_how_far_the_output_moves():
    model, base = small("llama")
    recipe = [FORMS["nf4"][0], LORA]
    params = moved(weights.attach(base, recipe, jax.random.key(1)), recipe)
    batch = batch_for(model)
    run = quick_jit(lambda p, b: model.apply(p, b).hidden)
    merged, little = weights.merge_back(params, run, batch)
    assert not packed_weights(merged) and not weights.names(merged) and 0 <= little < 1e-5
    low, rounding = weights.merge_back(params, run, batch, dtype=jnp.bfloat16)
    assert jax.tree.leaves(low)[0].dtype == jnp.bfloat16 and 1e-4 < rounding < 0.05
    onto, large = weights.merge_back(params, run, batch, base=base)
    assert 0.02 < large < 0.5
    by_hand = weights.merge(moved(weights.attach(base, LORA, jax.random.key(1)), LORA))
    path = "decoder/layers/00/mlp/up/kernel"
    np.testing.assert_array_equal(tree.paths(onto)[path], tree.paths(base)[path])
    assert tree.paths(by_hand).keys() == tree.paths(onto).keys()


@pytest.mark.parametrize("form", FORMS)
def test_a_mesh_computes_the_same_and_holds_a_part_of_the_integers(form):
    model, base = tiny("llama", n_layers=2, vocab_size=64)
    packed = quick_jit(lambda p: weights.quantize(p, FORMS[form][0]))(base)
    mesh = meshes.make_mesh({"fsdp": 2, "tensor": 2})
    tokens = batch_for(model, rows=4, length=8)["tokens"]
    run = quick_jit(lambda p: model.apply(p, {"tokens": tokens}).hidden)
    alone = run(packed)
    placed = jax.device_put(packed, meshes.shardings(packed, meshes.RULES, mesh))
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(run(placed), alone, rtol=1e-3, atol=2e-2 if form == "int8_dynamic" else 1e-4)
    codes = [leaf for leaf in jax.tree.leaves(placed) if leaf.dtype in (jnp.int8, jnp.uint8) and leaf.ndim == 3]
    share = [leaf.addressable_shards[0].data.size / leaf.size for leaf in codes if leaf.shape[-1] >= 16]
    assert len(share) > 5 and set(share) == {0.25}, share
