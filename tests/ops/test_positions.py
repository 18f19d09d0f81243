"""Positions against plain loops and published special cases."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.positions import (
    Rope,
    alibi_bias,
    alibi_slopes,
    relative_buckets,
    rope_frequencies,
    rope_tables,
    rotate,
    sinusoidal,
)


def test_sinusoidal_matches_the_formula():
    got = sinusoidal(jnp.array([[0, 1, 37]]), 8)
    for t, p in enumerate((0, 1, 37)):
        for i in range(4):
            angle = p / 10_000 ** (2 * i / 8)
            np.testing.assert_allclose(got[0, t, i], math.sin(angle), atol=1e-5)
            np.testing.assert_allclose(got[0, t, 4 + i], math.cos(angle), atol=1e-5)
    with pytest.raises(ValueError, match="even width; given 7"):
        sinusoidal(jnp.zeros((1, 1), int), 7)


class TestRope(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_rotation_is_complex_multiplication(self):
        rng = np.random.default_rng(0)
        x, positions = rng.normal(size=(2, 5, 3, 8)), jnp.array([[0, 1, 2, 3, 4], [7, 8, 9, 100, 1000]])
        got = self.variant(lambda x, p: rotate(x, rope_tables(p, Rope(), 8)))(jnp.float32(x), positions)
        turn = np.exp(1j * np.asarray(positions)[..., None] * 10_000.0 ** (-np.arange(0, 8, 2) / 8))
        want = (x[..., :4] + 1j * x[..., 4:]) * turn[:, :, None]
        np.testing.assert_allclose(got, np.concatenate([want.real, want.imag], -1), rtol=2e-4, atol=2e-4)

    def test_scores_depend_on_distance_alone(self):
        q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))
        score = lambda a, b: float(  # noqa: E731
            jnp.sum(
                rotate(q, rope_tables(jnp.array([[a]]), Rope(), 16))
                * rotate(k, rope_tables(jnp.array([[b]]), Rope(), 16))
            )
        )
        np.testing.assert_allclose(score(5, 3), score(105, 103), rtol=1e-3)


def test_linear_scaling_divides_positions():
    plain = rope_tables(jnp.array([[3]]), Rope(), 8)
    scaled = rope_tables(jnp.array([[12]]), Rope(scaling="linear", factor=4.0), 8)
    chex.assert_trees_all_close(plain, scaled, rtol=1e-5)


def test_ntk_keeps_the_fastest_frequency_and_stretches_the_slowest_by_the_factor():
    plain = rope_frequencies(Rope(), 16)
    scaled = rope_frequencies(Rope(scaling="ntk", factor=8.0), 16)
    assert plain[0] == scaled[0]
    np.testing.assert_allclose(plain[-1] / scaled[-1], 8.0, rtol=1e-9)


def test_dynamic_is_plain_up_to_the_original_length_and_ntk_like_beyond():
    rope = Rope(scaling="dynamic", factor=1.0, original_length=32)
    short = jnp.arange(32)[None]
    chex.assert_trees_all_close(rope_tables(short, rope, 8), rope_tables(short, Rope(), 8), rtol=1e-4, atol=1e-5)
    long = jnp.arange(64)[None]
    same = Rope(scaling="ntk", factor=2.0)
    chex.assert_trees_all_close(rope_tables(long, rope, 8), rope_tables(long, same, 8), rtol=1e-3, atol=1e-4)


def test_llama3_keeps_short_wavelengths_divides_long_ones_and_is_monotone():
    rope = Rope(theta=500_000.0, scaling="llama3", factor=8.0, original_length=8192)
    plain, scaled = rope_frequencies(Rope(theta=500_000.0), 128), rope_frequencies(rope, 128)
    wavelength = 2 * np.pi / plain
    np.testing.assert_allclose(scaled[wavelength < 8192 / 4], plain[wavelength < 8192 / 4])
    np.testing.assert_allclose(scaled[wavelength > 8192], plain[wavelength > 8192] / 8)
    assert (np.diff(scaled) < 0).all()


def test_yarn_interpolates_between_kept_and_divided_and_rescales_attention():
    rope = Rope(scaling="yarn", factor=4.0, original_length=2048)
    plain, scaled = rope_frequencies(Rope(), 128), rope_frequencies(rope, 128)
    np.testing.assert_allclose(scaled[0], plain[0])
    np.testing.assert_allclose(scaled[-1], plain[-1] / 4)
    assert ((scaled <= plain * 1.0001) & (scaled >= plain / 4.0001)).all()
    cos, _ = rope_tables(jnp.array([[0]]), rope, 128)
    np.testing.assert_allclose(cos, 0.1 * math.log(4) + 1, rtol=1e-6)


@pytest.mark.parametrize("rope", [Rope(scaling="yarm"), Rope(scaling="llama3", factor=8.0)])
def test_wrong_scalings_are_refused(rope):
    with pytest.raises(ValueError, match="RoPE scaling"):
        rope_frequencies(rope, 8)


def test_alibi_slopes_of_the_paper():
    np.testing.assert_allclose(alibi_slopes(8), [2.0**-i for i in range(1, 9)])
    np.testing.assert_allclose(alibi_slopes(16)[:2], [2**-0.5, 2**-1.0])
    # 12 heads: the 8 of a power of two, then every second slope of 16 (paper, section 3).
    np.testing.assert_allclose(alibi_slopes(12)[8:], [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])
    bias = alibi_bias(jnp.array([[4]]), jnp.array([[1, 4]]), 8)
    np.testing.assert_allclose(bias[0, :, 0, 0], -3 * alibi_slopes(8), rtol=1e-6)
    assert (bias[0, :, 0, 1] == 0).all()


@pytest.mark.parametrize("bidirectional", [True, False])
def test_relative_buckets_against_a_loop(bidirectional):
    def bucket(distance: int, buckets: int = 32, furthest: int = 128) -> int:
        start = 0
        if bidirectional:
            buckets //= 2
            start = buckets if distance > 0 else 0
            distance = abs(distance)
        else:
            distance = max(-distance, 0)
        if distance < buckets // 2:
            return start + distance
        exact = buckets // 2
        far = exact + int(np.float32(math.log(distance / exact) / math.log(furthest / exact)) * (buckets - exact))
        return start + min(far, buckets - 1)

    distances = np.arange(-300, 301)
    got = relative_buckets(jnp.asarray(distances), bidirectional=bidirectional)
    want = np.array([bucket(int(d)) for d in distances])
    # At exact powers the logarithm falls on a boundary and float32 may round to either side.
    assert (np.abs(np.asarray(got) - want) <= 1).all() and (np.asarray(got) == want).mean() > 0.98
