"""Dispatch on the type of the weight."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops import linear as rules


class TestArrays(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_linear_is_a_product_and_a_bias(self):
        rng = np.random.default_rng(0)
        x, w, b = rng.normal(size=(2, 3, 5)), rng.normal(size=(5, 4)), rng.normal(size=4)
        y = self.variant(rules.linear)(jnp.float32(w), jnp.float32(x), jnp.float32(b))
        np.testing.assert_allclose(y, x @ w + b, rtol=1e-5, atol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_embed_and_unembed_read_one_table(self):
        rng = np.random.default_rng(1)
        table, h = rng.normal(size=(7, 4)), rng.normal(size=(2, 4))
        ids = jnp.array([[3, 0], [6, 6]])
        np.testing.assert_allclose(self.variant(rules.embed)(jnp.float32(table), ids), table[np.array(ids)], rtol=1e-6)
        logits = self.variant(rules.unembed)(jnp.float32(table), jnp.float32(h))
        np.testing.assert_allclose(logits, h @ table.T, rtol=1e-5, atol=1e-5)


def test_unembed_of_bf16_gives_float32_logits():
    h, w = jnp.ones((1, 4), jnp.bfloat16), jnp.ones((3, 4), jnp.bfloat16)
    assert rules.unembed(w, h).dtype == jnp.float32
    assert rules.linear(w.T, h).dtype == jnp.bfloat16


def test_a_stored_f32_weight_keeps_an_f32_gradient_under_bf16_inputs():
    x = jax.random.normal(jax.random.key(0), (8, 4)).astype(jnp.bfloat16)
    w = jax.random.normal(jax.random.key(1), (4, 3))
    gradient = jax.grad(lambda w: rules.linear(w, x).astype(jnp.float32).sum())(w)
    assert gradient.dtype == jnp.float32
    np.testing.assert_allclose(gradient, np.repeat(np.float32(x).sum(0)[:, None], 3, 1), rtol=1e-2, atol=1e-2)


def test_an_unregistered_weight_is_refused_with_the_known_types():
    for rule, args in [(rules.linear, (jnp.ones((1, 2)),)), (rules.dense, ()), (rules.fold, ())]:
        with pytest.raises(TypeError, match="no rule for a weight of type str; have Array"):
            rule("kernel", *args)
