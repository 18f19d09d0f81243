"""Activations by name."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.activations import activation


def test_gelu_is_exact_and_its_tanh_form_is_another_function():
    x = jnp.linspace(-8, 8, 65)
    exact = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])
    np.testing.assert_allclose(activation("gelu")(x), exact, atol=2e-6)
    low = np.asarray(activation("gelu")(x.astype(jnp.bfloat16)), np.float32)[np.abs(x) <= 4]
    np.testing.assert_allclose(low, exact[np.abs(x) <= 4], rtol=0.06)
    difference = np.abs(np.asarray(activation("gelu_tanh")(x)) - exact).max()
    assert 1e-5 < difference < 1e-2


def test_an_unknown_name_lists_what_exists():
    with pytest.raises(ValueError, match=r"unknown activation 'gleu'; have \['gelu'"):
        activation("gleu")
