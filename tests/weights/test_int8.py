"""Int8 weights: codes against a plain numpy loop, layers against exact integers, one row against many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops import linear as rules
from research.ops.int8 import int8_product, row_scales, to_int8
from research.weights.int8 import W8A8, Int8, to_rows

O, I = 12, 40


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_loop(rows, symmetric):
    """Codes and the values they stand for, one number at a time."""
    codes, values = np.zeros(rows.shape, int), np.zeros(rows.shape)
    for o, row in enumerate(rows.astype(np.float64)):
        if symmetric:
            scale, zero, low = np.abs(row).max() / 127, 0, -127
        else:
            scale = (max(row.max(), 0) - min(row.min(), 0)) / 255
            zero, low = np.rint(-min(row.min(), 0) / scale) - 128, -128
        for i, x in enumerate(row):
            codes[o, i] = min(127, max(low, np.rint(x / scale) + zero))
            values[o, i] = (codes[o, i] - zero) * scale
    return codes, values


def leaf(rows, symmetric=True, kind=Int8, **more):
    return kind(*to_rows(jnp.asarray(rows, jnp.float32), symmetric), **more)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("symmetric", [True, False])
def test_codes_are_those_of_a_loop_and_the_error_is_half_a_step(seed, symmetric):
    rows = numbers(seed, O, I) + (0 if symmetric else 0.5)
    packed = leaf(rows, symmetric)
    codes, values = by_loop(rows, symmetric)
    # A number that lies halfway in float64 may fall to either side in float32.
    assert np.mean(np.asarray(packed.q) != codes) < 0.01 and np.abs(np.asarray(packed.q) - codes).max() <= 1
    step = np.asarray(packed.scale)[:, None]
    assert np.all(np.abs(np.asarray(packed.rows()) - values) <= 1.001 * step)
    assert np.all(np.abs(np.asarray(packed.rows()) - rows) <= (0.5 if symmetric else 1.0) * 1.001 * step)
    assert packed.q.dtype == jnp.int8 and (packed.zero is None) == symmetric
    assert packed.shape == (I, O) and rules.dense(packed).shape == (I, O)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_weight_only_is_the_product_with_the_numbers(symmetric, rows):
    packed, x, bias = leaf(numbers(0, O, I) + 0.3, symmetric), numbers(1, rows, 1, I), numbers(2, O)
    expected = x.astype(np.float64) @ np.asarray(rules.dense(packed), np.float64) + bias
    np.testing.assert_allclose(rules.linear(packed, jnp.asarray(x), jnp.asarray(bias)), expected, rtol=1e-5, atol=2e-5)
    low = rules.linear(packed, jnp.asarray(x, jnp.bfloat16), jnp.asarray(bias))
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(low), expected, rtol=2e-2, atol=8e-2)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("static", [True, False])
def test_eight_bit_products_are_exact_integers(symmetric, static):
    x = numbers(3, 4, I) * np.array([[1], [10], [0.01], [0]], np.float32)  # the last token is all zeros
    scale = jnp.float32(0.05) if static else None
    packed = leaf(numbers(4, O, I) - 0.2, symmetric, W8A8, input_scale=scale)
    y = jax.jit(rules.linear)(packed, jnp.asarray(x))
    steps = np.full((4, 1), 0.05, np.float32) if static else np.asarray(row_scales(jnp.asarray(x)))
    codes = np.clip(np.rint(x / steps), -127, 127).astype(np.int64)
    zero = 0 if symmetric else np.asarray(packed.zero, np.int64)[:, None]
    whole = codes @ (np.asarray(packed.q, np.int64) - zero).T
    np.testing.assert_allclose(y, whole * (steps * np.asarray(packed.scale)), rtol=1e-6)
    assert np.abs(y[3]).max() == 0
    # One row takes the padded path and gives what it gives among others.
    np.testing.assert_array_equal(rules.linear(packed, jnp.asarray(x[1])), rules.linear(packed, jnp.asarray(x))[1])


@pytest.mark.parametrize("kind", [Int8, W8A8])
def test_activations_learn_straight_through(kind):
    packed, x, g = leaf(numbers(5, O, I), True, kind), jnp.asarray(numbers(6, 3, I)), jnp.asarray(numbers(7, 3, O))
    gradient = jax.grad(lambda x: jnp.sum(rules.linear(packed, x) * g))(x)
    np.testing.assert_allclose(gradient, g @ packed.rows(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [Int8, W8A8])
def test_a_table_is_read_by_row_and_multiplied(kind):
    rows = numbers(8, 9, I)
    rows[4] = 0  # a row of zeros stays one
    table, h = leaf(rows, True, kind, table=True), jnp.asarray(numbers(9, 2, I))
    assert table.shape == (9, I)
    ids = jnp.array([[0, 4], [8, 3]])
    np.testing.assert_array_equal(rules.embed(table, ids), table.rows()[ids])
    assert np.abs(rules.embed(table, ids)[0, 1]).max() == 0
    logits = rules.unembed(table, h)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, h @ table.rows().T, rtol=1e-4, atol=1e-4 if kind is Int8 else 0.2)


@pytest.mark.oracle
def test_codes_and_integer_products_are_those_of_bitsandbytes():
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("bitsandbytes").functional
    x, w = numbers(10, 6, I).astype(np.float16), numbers(11, O, I).astype(np.float16)
    theirs, peaks, _ = ops.int8_vectorwise_quant(torch.tensor(w))
    ours = leaf(w)
    np.testing.assert_allclose(np.asarray(ours.scale) * 127, peaks.numpy(), rtol=1e-6)
    assert np.mean(np.asarray(ours.q) != theirs.numpy()) < 0.01
    codes = to_int8(jnp.asarray(x), row_scales(jnp.asarray(x)))
    product = ops.int8_linear_matmul(torch.tensor(np.array(codes)), torch.tensor(np.array(ours.q)))
    np.testing.assert_array_equal(int8_product(codes, ours.q), product.numpy())
