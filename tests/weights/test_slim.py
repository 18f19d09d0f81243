"""Structured pruning: what is left computes what the large model computes without those units, on every family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import weights
from research.core import tree
from research.models import build
from research.weights.slim import block_influence, importance, sizes, slim
from tests.models.conftest import tiny
from tests.parity.zoo import quick_jit

FAMILIES = ("llama", "t5", "bert", "gpt2")


def batch_for(config, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda n: jnp.asarray(rng.integers(3, 60, (2, n)), jnp.int32)  # noqa: E731
    batch = {"tokens": draw(7), "segment_ids": jnp.ones((2, 7), jnp.int32)}
    if config.kind == "encoder_decoder":
        batch |= {"inputs": draw(9), "input_segment_ids": jnp.ones((2, 9), jnp.int32)}
    return batch


def hidden(config, params, batch):
    return np.asarray(quick_jit(lambda p, b: build(config).apply(p, b).hidden)(params, batch))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    model, params = tiny(request.param, n_layers=3)
    return model.config, tree.stack(params)


def zeroed(config, params, worth, groups, columns):
    """The large model with the outputs of the units that go set to zero, unit by unit."""
    params, out = tree.unstack(params), {}
    for name in [n for n in ("encoder", "decoder") if n in params]:
        layers = []
        for i, layer in enumerate(params[name]["layers"]):
            layer = jax.tree.map(np.array, layer)
            for part, kernel, count in (("attention", "o", groups), ("cross", "o", groups), ("mlp", "down", columns)):
                if part not in layer or not count:
                    continue
                w, scores = layer[part][kernel]["kernel"], worth[f"{name}/{part}"]
                scores = scores.sum(0) if part == "attention" and config.positions == "relative" else scores[i]
                order = sorted(range(len(scores)), key=lambda u: (-scores[u], u))
                size = len(w) // len(scores)
                for unit in order[count:]:
                    w[unit * size : (unit + 1) * size] = 0
            layers.append(layer)
        out[name] = {**params[name], "layers": tuple(layers)}
    return tree.stack({**params, **out})


def test_what_is_left_is_the_large_model_without_the_units(family):
    config, params = family
    rng = np.random.default_rng(1)
    worth = {path: rng.uniform(size=x.shape) for path, x in sizes(config, params).items()}
    groups, shared = config.n_kv_heads - 1, config.n_heads // config.n_kv_heads
    small, cut = slim(config, params, heads=groups * shared, columns=20, importance=worth)
    assert (small.n_heads, small.n_kv_heads, small.d_ff, small.head_dim) == (
        groups * shared,
        groups,
        20,
        config.head_dim,
    )
    tree.check_same(build(small).abstract(), cut)
    batch = batch_for(config)
    want = hidden(config, zeroed(config, params, worth, groups, 20), batch)
    np.testing.assert_allclose(hidden(small, cut, batch), want, atol=1e-5)


def test_layers_go_by_their_numbers(family):
    config, params = family
    more = {"encoder_layers": (0,)} if config.kind == "encoder_decoder" else {}
    small, cut = slim(config, params, layers=(1, -1), **more)
    assert small.n_layers == 1 and small.n_encoder_layers == (2 if more else small.n_encoder_layers)
    tree.check_same(build(small).abstract(), cut)
    main = "encoder" if config.kind == "encoder" else "decoder"
    left, whole = (tree.unstack(p)[main]["layers"] for p in (cut, params))
    jax.tree.map(np.testing.assert_array_equal, left[0], whole[0])
    if more:
        jax.tree.map(np.testing.assert_array_equal, *(tree.unstack(p)["encoder"]["layers"][-1] for p in (cut, params)))


def test_importance_is_the_slope_of_the_loss_in_a_units_gate():
    model, params = tiny("llama", n_layers=2)
    params, config = tree.stack(params), model.config
    target = jnp.asarray(np.random.default_rng(3).normal(size=(2, 7, config.d_model)), jnp.float32)
    loss_fn = lambda p, batch, rng: (jnp.sum(target * model.apply(p, batch).hidden), {})  # noqa: E731
    batches = [batch_for(config, 0), batch_for(config, 1)]
    found = importance(loss_fn, config, params, batches)
    assert found["decoder/attention"].shape == (2, config.n_kv_heads) and found["decoder/mlp"].shape == (2, config.d_ff)
    layer, unit, eps = 1, 5, 1e-2
    down = tree.paths(params)["decoder/layers/00/mlp/down/kernel"]

    @jax.jit
    def loss(scale, batch):
        put = lambda path, w: down.at[layer, unit].multiply(scale) if path.endswith("down/kernel") else w  # noqa: E731
        return loss_fn(tree.map_with_path(put, params), batch, None)[0]

    slopes = [(loss(1 + eps, b) - loss(1 - eps, b)) / (2 * eps) for b in batches]
    assert found["decoder/mlp"][layer, unit] == pytest.approx(sum(abs(float(s)) for s in slopes), rel=2e-2)


def test_influence_of_a_layer_that_does_nothing_is_zero():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(2, 3, 5)).astype(np.float32)
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    second = np.where(mask[..., None], -2 * first, 7).astype(np.float32)
    found = block_influence([jnp.asarray(x) for x in (first, first, second)], jnp.asarray(mask))
    np.testing.assert_allclose(found, [0, 2], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 3}, r"how many of 4 stay, a multiple of the 2 that share keys; given 3"),
        ({"heads": 8}, "how many of 4 stay"),
        ({"columns": 49}, "how many of 48 stay; given 49"),
        ({"layers": (0, 1, 2)}, "all 3 layers of the decoder would go"),
        ({"layers": (5,)}, r"has 3 layers; given \[5\]"),
        ({"encoder_layers": (0,)}, "of kind 'decoder': give layers"),
    ],
)
def test_refusals(options, words):
    model, params = tiny("llama", n_layers=3)
    with pytest.raises(ValueError, match=words):
        slim(model.config, params, **options)


def test_heads_that_carry_their_number_and_weights_that_are_no_arrays_are_refused():
    model, params = tiny("bloom", n_layers=1)
    with pytest.raises(ValueError, match="ALiBi"):
        slim(model.config, params, heads=2)
    masked = weights.attach(params, {"method": "magnitude"}, jax.random.key(0))
    with pytest.raises(ValueError, match="merge adapters and masks"):
        slim(model.config, masked, columns=8)
    small, cut = slim(model.config, weights.merge(masked), columns=8)
    assert small.d_ff == 8 and hidden(small, cut, batch_for(small)).shape == (2, 7, small.d_model)
