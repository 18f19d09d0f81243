"""Products of 8-bit integers: exact against numpy's 64-bit integers, whatever path the number of rows takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.int8 import int8_product, row_scales, to_int8

O, I = 12, 40


def codes(seed, *shape):
    """Every code that int8 can hold, -128 too."""
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


def exact(x, w):
    return x.astype(np.int64) @ w.astype(np.int64).T


@pytest.mark.parametrize("lead", [(), (1,), (1, 1), (2,), (3,), (2, 3), (0,), (17,)])
def test_the_product_is_exact(lead):
    x, w = codes(0, *lead, I), codes(1, O, I)
    product = int8_product(jnp.asarray(x), jnp.asarray(w))
    assert product.dtype == jnp.int32
    np.testing.assert_array_equal(product, exact(x, w))
    np.testing.assert_array_equal(jax.jit(int8_product)(x, w), product)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_largest_sums_do_not_overflow(rows):
    x, w = np.full((rows, 4096), -128, np.int8), np.full((2, 4096), -128, np.int8)
    np.testing.assert_array_equal(int8_product(jnp.asarray(x), jnp.asarray(w)), exact(x, w))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("rows", [1, 4])
def test_products_side_by_side(axes, rows):
    x, w = codes(2, 3, rows, I), codes(3, 3, O, I)
    given = [a if axis == 0 else a[0] for a, axis in zip((x, w), axes, strict=True)]
    expected = [exact(x[i if axes[0] == 0 else 0], w[i if axes[1] == 0 else 0]) for i in range(3)]
    np.testing.assert_array_equal(jax.vmap(int8_product, axes)(*map(jnp.asarray, given)), expected)


def test_operands_stay_in_eight_bits():
    def products(rows):
        text = jax.jit(int8_product).lower(jnp.ones((rows, I), jnp.int8), jnp.ones((O, I), jnp.int8)).as_text()
        return [line.split(" : ")[1] for line in text.splitlines() if "dot_general" in line]

    assert products(3) == [f"(tensor<4x{I}xui8>, tensor<{O}x{I}xi8>) -> tensor<4x{O}xi32>"]
    assert products(1) == [f"(tensor<{O}x{I}xi8>, tensor<2x{I}xi8>) -> tensor<{O}x2xi32>"]


def test_a_mesh_takes_the_plain_product():
    x, w = codes(4, 5, I), codes(5, O, I)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        text = jax.jit(int8_product).lower(jnp.asarray(x), jnp.asarray(w)).as_text()
        np.testing.assert_array_equal(jax.jit(int8_product)(x, w), exact(x, w))
    assert f"(tensor<5x{I}xi8>, tensor<{O}x{I}xi8>) -> tensor<5x{O}xi32>" in text


def test_rows_are_rounded_to_their_own_scale():
    x = np.random.default_rng(6).normal(size=(3, I)).astype(np.float32)
    x[1] = 0
    scale = row_scales(jnp.asarray(x))
    np.testing.assert_allclose(scale[:, 0], [np.abs(x[0]).max() / 127, 1, np.abs(x[2]).max() / 127], rtol=1e-6)
    np.testing.assert_array_equal(to_int8(jnp.asarray(x), scale), np.clip(np.rint(x / np.asarray(scale)), -127, 127))
