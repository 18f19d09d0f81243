"""Attention against a numpy loop over rows and heads: masks, groups, windows, bias, caps, dropout, both precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from research.ops.attention import attention
from research.ops.masks import Mask

B, N, H = 2, 4, 8


def _qkv(seed: int, T: int, S: int, K: int, dtype: jnp.dtype) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(seed)
    shapes = (B, T, N, H), (B, S, K, H), (B, S, K, H)
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)


def _by_hand(q, k, v, seen, scale, bias=None, cap=None):
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    out = np.zeros_like(q)
    group = q.shape[2] // k.shape[2]
    for b in range(q.shape[0]):
        for n in range(q.shape[2]):
            scores = scale * q[b, :, n] @ k[b, :, n // group].T
            scores = scores if cap is None else cap * np.tanh(scores / cap)
            scores = scores if bias is None else scores + np.asarray(bias)[b if len(bias) > 1 else 0, n]
            scores = np.where(np.broadcast_to(seen, (q.shape[0], *scores.shape))[b], scores, -np.inf)
            p = np.exp(scores - scores.max(-1, keepdims=True))
            out[b, :, n] = p / p.sum(-1, keepdims=True) @ v[b, :, n // group]
    return out


def _causal(T: int, S: int) -> np.ndarray:
    return (np.arange(S)[None] <= np.arange(T)[:, None])[None]


@pytest.mark.parametrize("T", [1, 7, 33])
@pytest.mark.parametrize("K", [1, 2, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
def test_causal_and_full_attention_are_those_of_numpy(T, K, dtype, tolerance):
    q, k, v = _qkv(T + K, T, T, K, dtype)
    run = jax.jit(lambda q, k, v, mask: attention(q, k, v, mask, scale=0.3)[0])
    for mask, seen in ((Mask(causal=True), _causal(T, T)), (Mask(), np.ones((1, T, T), bool))):
        out = run(q, k, v, mask)
        assert out.dtype == dtype and out.shape == q.shape
        np.testing.assert_allclose(np.asarray(out, np.float64), _by_hand(q, k, v, seen, 0.3), atol=tolerance)


def test_bias_cap_and_window_together():
    q, k, v = _qkv(1, 9, 9, 2, jnp.float32)
    bias = jnp.asarray(np.random.default_rng(2).standard_normal((1, N, 9, 9)), jnp.float32)
    distance = np.arange(9)[:, None] - np.arange(9)[None]
    out, _ = attention(q, k, v, Mask(causal=True), scale=0.5, bias=bias, cap=2.0, window=3)
    seen = ((distance >= 0) & (distance < 3))[None]
    np.testing.assert_allclose(out, _by_hand(q, k, v, seen, 0.5, bias, 2.0), atol=1e-5)


def test_cross_attention_of_other_length_with_padded_keys():
    q, k, v = _qkv(3, 5, 11, 4, jnp.float32)
    keys = jnp.asarray(np.arange(11)[None] < np.array([[4], [11]]), jnp.int32)
    mask = Mask(query_segments=jnp.ones((B, 5), jnp.int32), key_segments=keys)
    out, p = attention(q, k, v, mask, scale=0.3, weights=True)
    seen = np.broadcast_to(np.asarray(keys)[:, None] == 1, (B, 5, 11))
    np.testing.assert_allclose(out, _by_hand(q, k, v, seen, 0.3), atol=1e-5)
    np.testing.assert_allclose(np.sum(p, -1), 1, rtol=1e-6)
    assert not np.any(np.asarray(p)[0, :, :, 4:])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_query_that_sees_nothing_is_finite_with_its_gradients(dtype):
    q, k, v = _qkv(4, 6, 6, 2, dtype)
    segments = jnp.array([[1, 1, 1, 2, 2, 2]] * B)
    mask = Mask(query_segments=segments, key_segments=jnp.ones_like(segments))
    loss = lambda q, k, v: jnp.sum(attention(q, k, v, mask, scale=1.0)[0].astype(jnp.float32) ** 2)  # noqa: E731
    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(q, k, v)
    assert np.isfinite(value) and all(bool(jnp.all(jnp.isfinite(g))) for g in grads)


@pytest.mark.parametrize(("causal", "cap", "K"), [(True, None, 4), (True, 2.0, 1), (False, None, 2)])
def test_gradients_by_finite_differences(causal, cap, K):
    fn = jax.jit(lambda q, k, v: attention(q, k, v, Mask(causal=causal), scale=0.4, cap=cap)[0])
    check_grads(fn, _qkv(5, 5, 5, K, jnp.float32), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


def test_gradients_in_bf16_are_near_those_in_float32():
    wide = _qkv(6, 64, 64, 2, jnp.float32)
    narrow = tuple(a.astype(jnp.bfloat16) for a in wide)

    def loss(q, k, v):
        return jnp.sum(jnp.sin(attention(q, k, v, Mask(causal=True), scale=0.35)[0].astype(jnp.float32)))

    run = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    for a, b in zip(run(*narrow), run(*(a.astype(jnp.float32) for a in narrow)), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float32), b, atol=0.03 * float(jnp.max(jnp.abs(b))))


def test_dropout_keeps_the_mean_and_needs_a_key():
    q, k, v = _qkv(7, 4, 4, 4, jnp.float32)
    plain, _ = attention(q, k, v, Mask(), scale=0.3)
    same, _ = attention(q, k, v, Mask(), scale=0.3, dropout=0.5)
    np.testing.assert_array_equal(plain, same)
    run = jax.jit(jax.vmap(lambda key: attention(q, k, v, Mask(), scale=0.3, dropout=0.3, rng=key)[0]))
    noisy = run(jax.random.split(jax.random.key(0), 4000))
    assert float(jnp.std(noisy, axis=0).max()) > 0.1
    np.testing.assert_allclose(jnp.mean(noisy, axis=0), plain, atol=0.06)
