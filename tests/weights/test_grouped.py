"""Codes of two to four bits: packing there and back, values against a plain numpy loop, bits counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops import linear as rules
from research.weights import bits_per_weight, packing
from research.weights.fake import FakeQuant
from research.weights.grouped import GroupedWeights


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def packed(rows, **options):
    return GroupedWeights(**options).pack("w", jnp.asarray(rows), options.pop("table", False), None)


def by_loop(rows, bits, group, symmetric):
    """Values after rounding on each group's grid, whose step is kept in 16 bits."""
    out = np.zeros(rows.shape, np.float32)
    for o, row in enumerate(rows):
        for start in range(0, len(row), group or len(row)):
            part = row[start : start + (group or len(row))]
            high, low = max(part.max(), np.float32(0)), min(part.min(), np.float32(0))
            span = np.float32(max(high, -low)) / np.float32(2 ** (bits - 1) - 1) if symmetric else None
            step = np.float32(np.float16(span if symmetric else (high - low) / np.float32(2**bits - 1)))
            zero = 2 ** (bits - 1) if symmetric else np.clip(np.rint(-low / step), 0, 2**bits - 1)
            code = np.clip(np.rint(part / step) + zero, 1 if symmetric else 0, 2**bits - 1)
            out[o, start : start + len(part)] = (code - zero) * step
    return out


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 64])
def test_codes_come_back_from_their_bytes(bits, length):
    codes = np.random.default_rng(length).integers(0, 2**bits, (3, 2, length)).astype(np.uint8)
    small = packing.pack(jnp.asarray(codes), bits)
    assert small.dtype == jnp.uint8
    assert small.shape[-1] == (-(-length // 2) if bits == 4 else bits * -(-length // 8))
    np.testing.assert_array_equal(packing.unpack(small, bits, length), codes)


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("columns", "group"), [(64, 16), (44, 16), (44, 0)])
def test_values_are_those_of_a_loop(bits, symmetric, columns, group):
    rows = numbers(bits + columns, 6, columns)
    ours = packed(rows, bits=bits, group=group, symmetric=symmetric)
    theirs = by_loop(rows, bits, group, symmetric)
    # A number halfway between two codes may go to either.
    apart = ~np.isclose(np.asarray(ours.rows()), theirs, rtol=1e-5, atol=1e-6)
    assert apart.mean() < 0.01
    assert ours.shape == (columns, 6)
    x = jnp.asarray(numbers(1, 3, columns))
    np.testing.assert_allclose(rules.linear(ours, x), x @ ours.rows().T, rtol=1e-4, atol=1e-4)
    # Training aware of it sees the very same numbers.
    fake = FakeQuant(jnp.asarray(rows.T), bits, group, symmetric)
    np.testing.assert_allclose(rules.dense(fake).T, ours.rows(), rtol=1e-5, atol=1e-6)


def test_bits_are_counted_from_the_arrays():
    rows = numbers(0, 128, 128)
    # codes + 16 bits of scale (+ 8 of zero) for each group
    for options, bits in [
        ({"bits": 4, "group": 64}, 4 + 24 / 64),
        ({"bits": 3, "group": 64, "symmetric": True}, 3 + 16 / 64),
        ({"bits": 3, "group": 128}, 3 + 24 / 128),
    ]:
        assert bits_per_weight({"w": packed(rows, **options)}) == bits


def test_the_gradient_goes_straight_through_the_rounding():
    w, x, g = (jnp.asarray(numbers(i, *s)) for i, s in enumerate([(32, 5), (3, 32), (3, 5)]))
    gradient = jax.grad(lambda w: jnp.sum(rules.linear(FakeQuant(w, 3, 16), x) * g))(w)
    np.testing.assert_allclose(gradient, x.T @ g, rtol=1e-4, atol=1e-5)
    assert np.abs(rules.dense(FakeQuant(w, 3, 16)) - w).max() > 0.05
