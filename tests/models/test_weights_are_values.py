"""A new kind of weight needs no change in the models: a toy leaf runs through every family, scanned and unrolled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from research.core import tree
from research.ops import linear as rules
from tests.models.conftest import tiny
from tests.models.test_model import batch_for


@struct.dataclass
class Shifted:
    """base + low-rank part: the smallest thing that LoRA is."""

    base: jax.Array
    a: jax.Array
    b: jax.Array

    @property
    def shape(self):
        return self.base.shape


@rules.linear.register
def _(w: Shifted, x, bias=None, rng=None):
    return rules.linear(w.base, x, bias, rng) + rules.linear(w.b, rules.linear(w.a, x))


@rules.dense.register
def _(w: Shifted):
    return w.base + w.a @ w.b


def attach(params, rank=2):
    chosen = tree.paths(tree.select(params, r".*/(q|down)/kernel"))

    def node(path, leaf):
        if not chosen[path]:
            return leaf
        *layers, i, o = leaf.shape
        key = jax.random.fold_in(jax.random.key(5), len(path))
        a = 0.3 * jax.random.normal(key, (*layers, i, rank))
        return Shifted(leaf, a, 0.3 * jax.random.normal(key, (*layers, rank, o)))

    return tree.map_with_path(node, params)


@pytest.mark.parametrize("name", ["bert", "llama", "bart"])
def test_a_new_leaf_type_runs_through_the_models_as_they_are(name):
    model, params = tiny(name)
    batch = batch_for(model)
    with_leaves = attach(params)
    folded = jax.tree.map(
        lambda leaf: jax.vmap(rules.fold)(leaf) if isinstance(leaf, Shifted) else leaf,
        with_leaves,
        is_leaf=lambda leaf: isinstance(leaf, Shifted),
    )
    run = jax.jit(lambda p: model.apply(p, batch).hidden)
    expected = run(folded)
    np.testing.assert_allclose(run(with_leaves), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(run(tree.unstack(with_leaves)), expected, rtol=1e-3, atol=1e-4)
    assert jnp.abs(expected - run(params)).max() > 1e-3


def test_only_the_new_leaf_trains_when_the_tree_is_split():
    model, params = tiny("llama")
    batch = batch_for(model)
    params = attach(params)
    mask = tree.select(params, r".*/kernel/(a|b)")
    trainable, frozen = tree.split(params, mask)

    @jax.jit
    @jax.grad
    def gradient(trainable):
        return jnp.sum(model.apply(tree.merge(trainable, frozen), batch).hidden ** 2)

    moved = tree.paths(gradient(trainable))
    assert len(moved) == 4 and all(path.endswith(("/a", "/b")) for path in moved)
    assert all(np.abs(leaf).max() > 0 for leaf in moved.values())


def test_a_weight_of_the_wrong_shape_is_refused_by_path():
    model, params = tiny("llama")
    broken = tree.map_with_path(lambda p, w: w[..., :-1] if p.endswith("mlp/up/kernel") else w, params)
    with pytest.raises(ValueError, match=r"weight 'mlp/up/kernel' has shape \(32, 47\); the model expects \(32, 48\)"):
        model.apply(broken, batch_for(model))
