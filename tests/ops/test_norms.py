"""Norms against the formula in numpy float64."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.norms import layer_norm, rms_norm


class TestNorms(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_layer_norm(self):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            x, scale, bias = rng.normal(3, 5, size=(2, 4, 6)), rng.normal(size=6), rng.normal(size=6)
            want = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias
            got = self.variant(lambda *a: layer_norm(*a))(jnp.float32(x), jnp.float32(scale), jnp.float32(bias))
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_rms_norm_with_and_without_offset(self):
        rng = np.random.default_rng(0)
        x, scale = rng.normal(size=(3, 8)), rng.normal(size=8)
        unit = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        np.testing.assert_allclose(
            self.variant(lambda *a: rms_norm(*a))(jnp.float32(x), jnp.float32(scale)), unit * scale, rtol=1e-5
        )
        got = self.variant(lambda *a: rms_norm(*a, offset=1.0))(jnp.float32(x), jnp.float32(scale))
        np.testing.assert_allclose(got, unit * (1 + scale), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_bf16_is_normed_in_float32_and_constant_rows_stay_finite(norm):
    x = (1000 + jnp.arange(16.0)).astype(jnp.bfloat16)[None]
    wide = norm(x.astype(jnp.float32), None)
    got = norm(x, None)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(got), wide, rtol=1e-2, atol=1e-2)
    assert np.isfinite(norm(jnp.zeros((1, 4)), None)).all()
