"""One mask rule against a plain loop over queries and keys."""

import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.masks import Mask, visible


def loop(mask: Mask, T: int, S: int, window: int | None) -> np.ndarray:
    B = next((a.shape[0] for a in (mask.query_positions, mask.query_segments, mask.horizon) if a is not None), 1)
    seen = np.zeros((B, T, S), bool)
    for b in range(B):
        for t in range(T):
            for s in range(S):
                q = t if mask.query_positions is None else int(mask.query_positions[b, t])
                k = s if mask.key_positions is None else int(mask.key_positions[b, s])
                ok = k >= 0
                if mask.horizon is not None:
                    ok &= k <= int(mask.horizon[b, t])
                elif mask.causal:
                    ok &= k <= q
                if window is not None:
                    ok &= q - k < window
                if mask.query_segments is not None:
                    ok &= int(mask.query_segments[b, t]) == int(mask.key_segments[b, s])
                seen[b, t, s] = ok
    return seen


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 3])
def test_mask_is_the_rule(seed, causal, window):
    rng = np.random.default_rng(seed)
    T = S = 6
    segments = jnp.asarray(np.sort(rng.integers(0, 3, (2, T))))
    positions = jnp.asarray(rng.integers(-1, 6, (2, S)))
    masks = [
        Mask(causal),
        Mask(causal, query_segments=segments, key_segments=segments),
        Mask(causal, query_positions=jnp.maximum(positions, 0), key_positions=positions),
        Mask(causal, horizon=jnp.asarray(rng.integers(0, 6, (2, T)))),
    ]
    for mask in masks:
        got = visible(mask, T, S, window)
        want = loop(mask, T, S, window)
        if got is None:
            assert want.all()
        else:
            np.testing.assert_array_equal(got, want)


def test_nothing_to_hide_is_no_mask():
    assert visible(Mask(), 3, 3) is None and Mask().plain
    assert not Mask(horizon=jnp.zeros((1, 1), int)).plain
