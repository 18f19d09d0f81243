"""Activations by name."""

import math

import numpy as np
import pytest

from research.ops.activations import activation


def test_gelu_is_exact_and_its_tanh_form_is_another_function():
    x = np.linspace(-4, 4, 33).astype(np.float32)
    exact = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])
    np.testing.assert_allclose(activation("gelu")(x), exact, atol=1e-5)
    difference = np.abs(np.asarray(activation("gelu_tanh")(x)) - exact).max()
    assert 1e-5 < difference < 1e-2


def test_an_unknown_name_lists_what_exists():
    with pytest.raises(ValueError, match=r"unknown activation 'gleu'; have \['gelu'"):
        activation("gleu")
