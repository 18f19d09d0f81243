"""NF4 and FP4: equal to `bitsandbytes`, and to a numpy version that looks for the nearest number one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops import linear as rules
from research.weights import bits_per_weight
from research.weights.nf4 import FP4, NF4, Fp4Weights, Nf4Weights, dynamic_map

METHODS = {"nf4": Nf4Weights, "fp4": Fp4Weights}


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def packed(kind, rows, table=False, **options):
    return METHODS[kind](**options).pack("w", jnp.asarray(rows), table, None)


def by_loop(rows, codebook, block):
    """Values after rounding, every number compared with all sixteen."""
    out = np.zeros(rows.shape)
    for o, row in enumerate(rows.astype(np.float64)):
        for start in range(0, len(row), block):
            part = row[start : start + block]
            largest = np.abs(part).max()
            for i, x in enumerate(part):
                out[o, start + i] = min(codebook, key=lambda c, u=x / (largest or 1): abs(c - u)) * largest
    return out


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(("columns", "block"), [(64, 64), (100, 64), (37, 64), (37, 8), (128, 32)])
def test_values_are_those_of_a_loop(kind, columns, block):
    rows = numbers(columns + block, 5, columns)
    rows[2] = 0
    ours = packed(kind, rows, block=block, double=False)
    np.testing.assert_allclose(ours.rows(), by_loop(rows, ours.CODEBOOK, block), rtol=1e-6, atol=1e-7)
    assert ours.shape == (columns, 5) and ours.codes.dtype == jnp.uint8
    assert ours.codes.shape == (5, -(-columns // 2))
    assert np.abs(np.asarray(ours.rows()[2])).max() == 0


@pytest.mark.parametrize("kind", METHODS)
def test_scales_of_scales_cost_little_and_their_error_is_small(kind):
    rows = numbers(0, 96, 192)
    once, twice = packed(kind, rows, double=False), packed(kind, rows)
    np.testing.assert_array_equal(once.codes, twice.codes)
    assert np.abs(np.asarray(twice.scales()) / np.asarray(once.scales()) - 1).max() < 0.02
    # Counted: 4 + 8/64 + 32/(64·256) bits, and one mean for the whole matrix.
    large = packed(kind, numbers(1, 512, 512))
    assert bits_per_weight({"w": large}) == pytest.approx(4.127, abs=5e-4)
    assert bits_per_weight({"w": packed(kind, numbers(1, 512, 512), double=False)}) == 4.5


def test_layers_are_packed_each_for_itself():
    rows = numbers(2, 3, 70, 64) * np.array([1, 5, 0.1], np.float32)[:, None, None]
    stacked = packed("nf4", rows)
    for layer in range(3):
        alone = packed("nf4", rows[layer])
        np.testing.assert_array_equal(jax.tree.map(lambda w, i=layer: w[i], stacked).rows(), alone.rows())
    assert stacked.shape == (3, 64, 70)


@pytest.mark.parametrize("double", [True, False])
def test_tables_and_products_use_the_same_numbers(double):
    rows = numbers(3, 33, 128)
    table = packed("nf4", rows, table=True, double=double)
    ids = jnp.array([[0, 32], [7, 7]])
    np.testing.assert_allclose(rules.embed(table, ids), table.rows()[ids], rtol=1e-6)
    h = jnp.asarray(numbers(4, 2, 128))
    np.testing.assert_allclose(rules.unembed(table, h), h @ table.rows().T, rtol=1e-4, atol=1e-4)
    kernel = packed("nf4", rows, double=double)
    np.testing.assert_allclose(rules.linear(kernel, h), h @ rules.dense(kernel), rtol=1e-4, atol=1e-4)
    gradient = jax.grad(lambda h: jnp.sum(rules.linear(kernel, h) ** 2))(h)
    np.testing.assert_allclose(gradient, 2 * (h @ rules.dense(kernel)) @ kernel.rows(), rtol=1e-3, atol=1e-2)


def test_the_backward_pass_keeps_integers_and_no_numbers():
    kernel = packed("nf4", numbers(5, 64, 128))
    _, pull = jax.vjp(lambda x: rules.linear(kernel, x), jnp.ones((2, 128)))
    kept = [leaf for leaf in jax.tree.leaves(pull) if leaf.size >= 64 * 128]
    assert not kept, [leaf.shape for leaf in kept]


@pytest.mark.oracle
def test_codebooks_are_those_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes").functional
    for kind, leaf in (("nf4", NF4), ("fp4", FP4)):
        np.testing.assert_array_equal(np.float32(leaf.CODEBOOK), functional.get_4bit_type(kind, device="cpu").numpy())
    np.testing.assert_array_equal(dynamic_map(), functional.create_dynamic_map().numpy())


@pytest.mark.oracle
@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("block", [64, 128])
@pytest.mark.parametrize("double", [True, False])
def test_codes_and_values_are_those_of_bitsandbytes(kind, block, double):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("bitsandbytes").functional
    rows = numbers(block, 80, 256) * np.float32(0.02)
    rows[3] = 0
    theirs, state = functional.quantize_4bit(
        torch.tensor(rows), blocksize=block, quant_type=kind, compress_statistics=double
    )
    ours = packed(kind, rows, block=block, double=double)
    np.testing.assert_array_equal(np.asarray(ours.codes).reshape(-1), theirs.numpy().reshape(-1))
    if double:
        # The mean is summed in another order, so a scale halfway between two numbers may go to either.
        gap = np.abs(np.asarray(ours.absmax, int).reshape(-1) - state.absmax.numpy().astype(int))
        assert gap.max() <= 1 and np.mean(gap) < 0.005
        np.testing.assert_allclose(ours.outer, state.state2.absmax.numpy(), rtol=1e-6)
        np.testing.assert_allclose(ours.offset, state.offset.numpy(), rtol=1e-6)
    values = functional.dequantize_4bit(theirs, state).numpy()
    wrong = ~np.isclose(np.asarray(ours.rows()), values, rtol=2e-6, atol=1e-8)
    assert wrong.mean() <= (gap.sum() / gap.size if double else 0)  # only in the blocks of such scales
