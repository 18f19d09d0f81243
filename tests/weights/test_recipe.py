"""Recipes: what they accept, what they train, how adapters are merged, stripped, mixed and routed."""

import json
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import weights
from research.core import mesh as meshes
from research.core import tree
from research.data.virtual import prepend
from research.models import build, preset
from research.weights.calibrate import blank
from research.weights.prompts import virtual_ids
from tests.models.conftest import tiny, tiny_config
from tests.models.test_model import batch_for
from tests.parity.zoo import quick_jit

KEY = jax.random.key(0)


def shaken(params, seed):
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        structure, [w + 0.2 * jax.random.normal(k, w.shape) for w, k in zip(leaves, keys, strict=True)]
    )


def lora(params, seed, **options):
    """A LoRA whose B is not zero, on the base as it is."""
    recipe = {"method": "lora", "rank": 2} | options
    adapted = weights.attach(params, recipe, jax.random.key(seed))
    learns, frozen = tree.split(adapted, weights.trainable(adapted, recipe))
    return tree.merge(shaken(learns, seed), frozen)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"method": "lorra"}, "unknown PEFT method 'lorra', did you mean 'lora'?"),
        ({"rank": 4}, "unknown PEFT method None"),
        ({"method": "lora", "rnak": 4}, "method 'lora' has no option 'rnak', did you mean 'rank'?"),
        ({"method": "dora", "decomposed": False}, "method 'dora' has no option 'decomposed'"),
        ({"method": "lora", "rank": "8"}, "option 'rank' of method 'lora' is like 8; given '8'"),
        ({"method": "lora", "rank": 0}, "rank 0 does not fit 'decoder/layers/00/attention/q/kernel' of 32 x 32"),
        ({"method": "lora", "rank": 17}, "rank 17 does not fit 'decoder/layers/00/attention/v/kernel' of 32 x 16"),
        ({"method": "lora", "target": ".*/query/kernel"}, "pattern '.*/query/kernel' matches no weight (nearest: "),
        ({"method": "lora", "target": ".*norm/scale"}, "LoRA adapts matrices; 'decoder/"),
        ({"method": "lora", "layers": [3, 4]}, "layers (3, 4) holds none of the model's 3 layers"),
        ({"method": "lora", "layers": [1]}, "layers is a pair (first, stop); given (1,)"),
        ({"method": "last_layers", "count": 0}, "count is the number of layers that learn, at least 1; given 0"),
        ({"method": "last_layers", "count": 9}, "count 9 is more than the model's 3 layers"),
        ({"method": "bitfit"}, "pattern '.*/bias' matches no weight"),
        ({"method": "prompt", "length": 0}, "a soft prompt has at least 1 virtual token; given length 0"),
        ({"method": "prompt", "init": "words"}, "unknown init 'words' of a soft prompt"),
        ({"method": "prompt", "init": "text"}, "init 'text' of a soft prompt needs `text` and a tokenizer"),
        ([{"method": "prompt"}, {"method": "prompt"}], "the model has a soft prompt already ('default')"),
        ({"method": "prefix", "length": 0}, "a prefix has at least 1 virtual token; given length 0"),
        ({"method": "houlsby", "width": 0}, "an adapter is at least 1 wide; given width 0"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_in_one_line(recipe, message):
    model, params = tiny("llama")
    with pytest.raises(ValueError, match=re.escape(message)):
        weights.attach(params, recipe, KEY, config=model.config)


@pytest.mark.parametrize("recipe", [{"method": name} for name in weights.METHODS if name != "bitfit"])
def test_a_description_is_json_and_says_all_that_the_recipe_said(recipe):
    model, params = tiny("llama")
    described = json.loads(json.dumps(weights.describe(recipe)))
    facts = blank(params)  # calibrated rules look at them
    once = weights.attach(params, recipe, KEY, config=model.config, statistics=facts)
    again = weights.attach(params, described, KEY, config=model.config, statistics=facts)
    chex.assert_trees_all_equal(once, again)
    shapes = weights.structure(model.abstract(), described, config=model.config)
    tree.check_same(once, shapes)
    assert jax.tree.structure(once) == jax.tree.structure(shapes)


def test_cutting_runs_never_changes_what_an_adapter_begins_with():
    _, params = tiny("llama")
    whole = weights.attach(params, {"method": "lora"}, KEY)
    cut = weights.attach(tree.cut(params, [1]), {"method": "lora"}, KEY)
    chex.assert_trees_all_equal(tree.cut(whole, [1]), cut)


# Published: the json files of peft's method comparison for Llama-3.2-3B; q and v, k and v and down, the whole MLP.
@pytest.mark.parametrize(
    ("recipe", "count"),
    [
        ({"method": "lora", "rank": 32}, 9_175_040),
        ({"method": "lora", "rank": 64}, 18_350_080),
        ({"method": "lora", "rank": 10, "target": ".*/mlp/.*/kernel"}, 9_461_760),
        ({"method": "dora", "rank": 32}, 9_289_728),
        ({"method": "ia3"}, 286_720),
        ({"method": "prompt", "length": 200}, 614_400),
        ({"method": "prefix", "length": 200}, 11_468_800),
        ({"method": "prefix", "length": 50}, 2_867_200),
        ({"method": "full"}, 3_212_749_824),
    ],
)
def test_trainable_counts_are_the_published_ones_without_allocating_the_model(recipe, count):
    config = preset("llama3.2-3b")
    shapes = weights.structure(build(config).abstract(), recipe, config=config)
    learning, _ = tree.split(shapes, weights.trainable(shapes, recipe))
    assert tree.count(learning) == count


def test_a_merged_lora_is_the_base_program():
    model, params = tiny("llama")
    batch = batch_for(model)
    adapted = lora(params, 1)
    compiled = [
        quick_jit(lambda p: model.apply(p, batch).hidden).lower(p).compile().as_text()
        for p in (params, weights.merge(adapted), adapted)
    ]
    operations = [sorted(re.findall(r"= \S+ ([\w-]+)\(", text)) for text in compiled]
    assert operations[0] == operations[1]
    assert len(operations[2]) > len(operations[0])


def test_strip_removes_one_adapter_by_name_and_shares_the_rest():
    model, params = tiny("llama")
    first = lora(params, 1, name="sft")
    second = lora(first, 2, name="ppo")
    assert weights.names(second) == ("sft", "ppo")
    reference = weights.strip(second, "ppo")
    chex.assert_trees_all_equal(reference, first)
    shared = {id(leaf) for leaf in jax.tree.leaves(second)}
    assert all(id(leaf) in shared for leaf in jax.tree.leaves(reference))
    run = quick_jit(lambda p, b: model.apply(p, b).hidden)
    inner = weights.strip(second, "sft")
    assert weights.names(inner) == ("ppo",)
    deltas = [run(p, batch_for(model)) for p in (params, inner, second)]
    assert all(np.abs(x - y).max() > 1e-3 for x, y in [(deltas[0], deltas[1]), (deltas[1], deltas[2])])
    with pytest.raises(ValueError, match=r"no adapter is called 'dpo'; have \['sft', 'ppo'\]"):
        weights.strip(second, "dpo")
    mask = tree.paths(weights.trainable(second, {"method": "lora", "name": "ppo"}))
    assert {path.rsplit("/", 2)[-2] for path, on in mask.items() if on} == {"kernel"}


@pytest.mark.parametrize(
    "recipe",
    [{"method": "lora", "rank": 2}, {"method": "prompt", "length": 3}, {"method": "prefix", "length": 2}],
    ids=lambda recipe: recipe["method"],
)
def test_adapters_are_swapped_without_compiling_again(recipe):
    model, params = tiny("llama")
    a, b = (weights.attach(params, recipe, jax.random.key(i), config=model.config) for i in range(2))
    mask = weights.trainable(a, recipe)
    parts = [tree.split(p, mask) for p in (a, b)]
    a, b = (tree.merge(shaken(learned, i), frozen) for i, (learned, frozen) in enumerate(parts))
    batch = batch_for(model)
    batch = jax.tree.map(jnp.asarray, prepend(batch, virtual_ids(a)) if virtual_ids(a) else batch)
    run = quick_jit(chex.assert_max_traces(n=1)(lambda p: model.apply(p, batch).hidden))
    chex.clear_trace_counter()
    _, frozen = tree.split(a, mask)
    learned, _ = tree.split(b, mask)
    first, swapped, alone = run(a), run(tree.merge(learned, frozen)), run(b)
    np.testing.assert_array_equal(swapped, alone)
    assert np.abs(first - swapped).max() > 1e-3


@pytest.mark.parametrize("family", ["bert", "llama", "t5-v1.1"])
def test_rows_with_their_own_adapters_equal_each_row_alone(family):
    model, params = tiny(family)
    adapters = [lora(params, 1), lora(params, 2, rank=3), params | {}]
    adapters[2] = weights.attach(params, {"method": "lora", "rank": 1}, KEY)  # does nothing
    batch = {k: jnp.concatenate([v, v]) for k, v in batch_for(model).items()}
    run = quick_jit(chex.assert_max_traces(n=4)(lambda p, b: model.apply(p, b).hidden))
    chex.clear_trace_counter()
    pooled = weights.pool(adapters)
    for ids in ([2, 0, 1, 0], [1, 1, 2, 0]):
        together = run(weights.route(pooled, ids), batch)
        for row, i in enumerate(ids):
            alone = run(adapters[i], batch)[row]
            np.testing.assert_allclose(together[row], alone, rtol=1e-4, atol=2e-5)
    with pytest.raises(ValueError, match=r"adapter ids \[0, 3\] are not all in 0..2"):
        weights.route(pooled, [0, 3])
    with pytest.raises(ValueError, match="the tree holds no pool"):
        weights.route(params, [0])
    with pytest.raises(ValueError, match="no one merged weight"):
        weights.merge(pooled)


def test_a_weighted_mix_is_the_sum_of_the_updates():
    _, params = tiny("llama")
    a, b = lora(params, 1), lora(params, 2, rank=3, alpha=4.0)
    mixed = tree.paths(weights.merge(weights.mix([a, b], [0.7, -0.2])))
    base, first, second = (tree.paths(weights.merge(p)) for p in (params, a, b))
    for path, leaf in mixed.items():
        expected = base[path] + 0.7 * (first[path] - base[path]) - 0.2 * (second[path] - base[path])
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="2 adapters need as many weights; given 1"):
        weights.mix([a, b], [1.0])
    with pytest.raises(ValueError, match="adapter 1 sits on other weights than adapter 0"):
        weights.mix([a, lora(params, 3, target=".*/k/kernel")], [1.0, 1.0])
    with pytest.raises(ValueError, match="only LoRA adapters go together; given a Scaled"):
        weights.mix([weights.attach(params, {"method": "ia3"}, KEY)], [1.0])


def test_lora_plus_asks_for_a_faster_b():
    assert weights.rate_groups({"method": "lora", "rate_ratio": 16.0}) == ((r".*/b", 16.0),)
    assert weights.rate_groups([{"method": "lora"}, {"method": "ia3"}]) == ()
    with pytest.raises(ValueError, match=r"rate ratios \[1.0, 16.0\]"):
        weights.rate_groups([{"method": "lora", "rate_ratio": 16.0}, {"method": "lora"}])


def test_adapters_follow_their_base_on_a_mesh():
    config = tiny_config("llama", vocab_size=64)
    shapes = build(config).abstract()
    mesh = jax.sharding.AbstractMesh((1, 2, 2, 1), meshes.AXES)
    recipe = [{"method": "dora"}, {"method": "ia3"}, {"method": "houlsby"}, {"method": "prompt"}]
    adapted = weights.structure(shapes, recipe, config=config)
    table = meshes.specs(adapted, meshes.RULES, mesh)
    assert set(table) == set(tree.paths(adapted))
    spec = {path.removeprefix("decoder/layers/00/"): tuple(spec) for path, spec in table.items()}
    assert spec["attention/v/kernel/base/base"] == (None, "fsdp", "tensor")
    assert spec["attention/v/kernel/base/a"] == (None, "fsdp", None)
    assert spec["attention/v/kernel/base/b"] == (None, None, "tensor")
    assert spec["attention/v/kernel/base/magnitude"] == spec["attention/v/kernel/gain"] == (None, "tensor")
    assert spec["mlp/down/kernel/base/gain"] == (None, "tensor")
    assert spec["mlp/down/kernel/down"] == (None, "fsdp", None)
    assert spec["embed/tokens/embedding/prompt"] == ()


def test_unstacked_layers_are_adapted_like_stacked_ones():
    _, params = tiny("llama")
    recipe = [{"method": "ia3"}, {"method": "lora", "rank": 2}]
    first, second = (weights.attach(p, recipe, jax.random.key(1)) for p in (params, tree.unstack(params)))
    chex.assert_trees_all_equal(first, second)
