"""Block-wise causal attention against the plain softmax over a full mask, values and gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops import attention as attentions
from research.ops.attention import attention
from research.ops.causal import BLOCK, causal_attention
from research.ops.masks import Mask, visible


def reference(q, k, v, segments, scale):
    """One einsum and one softmax, in float32."""
    G = q.shape[1] // k.shape[1]
    k, v = (jnp.repeat(x.astype(jnp.float32), G, axis=1) for x in (k, v))
    s = jnp.einsum("bnth,bnsh->bnts", q.astype(jnp.float32), k) * scale
    seen = visible(Mask(True, query_segments=segments, key_segments=segments), s.shape[2], s.shape[3])
    return jnp.einsum("bnts,bnsh->bnth", jax.nn.softmax(jnp.where(seen[:, None], s, -1e30)), v)


def inputs(seed, T, N=4, K=2, H=8, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 4)
    q, g = (jax.random.normal(key, (2, N, T, H), dtype) for key in keys[:2])
    k, v = (jax.random.normal(key, (2, K, T, H), dtype) for key in keys[2:])
    return q, k, v, g


@pytest.mark.parametrize(("T", "K"), [(1, 4), (BLOCK, 2), (BLOCK + 1, 1), (2 * BLOCK + 37, 2)])
@pytest.mark.parametrize("packed", [False, True])
def test_values_and_gradients_equal_the_plain_formula(T, K, packed):
    q, k, v, g = inputs(T, T, K=K)
    segments = jnp.sort(jax.random.randint(jax.random.key(9), (2, T), 0, 4), axis=1) if packed else None
    run = lambda f: jax.jit(lambda q, k, v: jax.vjp(lambda *x: f(*x, segments, 0.3), q, k, v)[1](g))(q, k, v)  # noqa: E731
    got = jax.jit(causal_attention, static_argnums=4)(q, k, v, segments, 0.3)
    np.testing.assert_allclose(got, reference(q, k, v, segments, 0.3), rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(run(causal_attention), run(reference), rtol=1e-3, atol=1e-4)


def test_bf16_stays_near_and_large_scores_stay_finite():
    q, k, v, g = inputs(0, 200, dtype=jnp.bfloat16)
    got, pull = jax.jit(
        lambda q, k, v: jax.vjp(lambda *x: causal_attention(*x, None, 0.3), q, k, v), static_argnums=()
    )(q, k, v)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(got), reference(q, k, v, None, 0.3), rtol=5e-2, atol=5e-2)
    exact = jax.vjp(lambda *x: reference(*x, None, 0.3), q, k, v)[1](g.astype(jnp.float32))
    for ours, theirs in zip(pull(g), exact, strict=True):
        scale = np.abs(np.float32(theirs)).max()
        np.testing.assert_allclose(np.float32(ours), np.float32(theirs), atol=3e-2 * scale)
    huge = causal_attention(1e4 * q, 1e4 * k, v, None, 1.0)
    assert np.isfinite(np.float32(huge)).all()


def test_attention_takes_this_path_only_where_it_computes_the_same(monkeypatch):
    q, k, v, _ = (x.transpose(0, 2, 1, 3) for x in inputs(1, BLOCK + 9))
    segments = jnp.sort(jax.random.randint(jax.random.key(2), (2, BLOCK + 9), 0, 3), axis=1)
    positions = jnp.tile(jnp.arange(BLOCK + 9), (2, 1))
    ordered = Mask(True, positions, positions, segments, segments, ordered=True)
    free = Mask(True, positions, positions, segments, segments)
    calls = []
    blocks = attentions.causal_attention
    monkeypatch.setattr(attentions, "causal_attention", lambda *a: calls.append(1) or blocks(*a))
    fast, slow = attention(q, k, v, ordered, scale=0.3)[0], attention(q, k, v, free, scale=0.3)[0]
    assert len(calls) == 1
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-5)
    attention(q, k, v, ordered, scale=0.3, window=5)
    attention(q, k, v, ordered.replace(horizon=positions), scale=0.3)
    attention(q, k, v, ordered, scale=0.3, weights=True)
    assert len(calls) == 1
