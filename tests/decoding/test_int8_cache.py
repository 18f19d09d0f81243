"""Keys and values in eight bits: near the full forward pass, a fraction of the bytes, one option of `generate`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import weights
from research.core import tree
from research.decoding import generate
from research.ops import cache as caches
from tests.models.conftest import tiny
from tests.models.test_model import batch_for
from tests.parity.zoo import quick_jit


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_decoding_is_near_the_full_forward(family):
    model, params = tiny(family)
    params, batch = tree.unstack(params), batch_for(model)
    T = batch["tokens"].shape[1]
    full = quick_jit(lambda p: model.apply(p, batch).hidden)(params)
    step = quick_jit(lambda p, tokens, cache: model.apply(p, {"tokens": tokens}, cache=cache))
    plain = model.start(params, batch, T)
    small = caches.to_int8(plain)
    # One byte for a number and four for the scale of each head, here of 8 numbers, instead of four for a number.
    assert tree.nbytes(small.layers) / tree.nbytes(plain.layers) == (8 + 4) / 32
    out = step(params, batch["tokens"][:, :4], small)
    pieces = [out.hidden]
    for t in range(4, T):
        out = step(params, batch["tokens"][:, t : t + 1], out.cache)
        pieces.append(out.hidden)
    assert out.cache.layers[0].k.dtype == jnp.int8
    assert 1e-5 < weights.drift(full, jnp.concatenate(pieces, 1)) < 0.02


def test_what_is_written_is_read_back_to_half_a_step():
    cache = caches.to_int8(caches.empty(2, 6, 1, 3, 8, np.dtype(np.float32)))
    k, v = jax.random.normal(jax.random.key(0), (2, 2, 4, 3, 8)) * jnp.arange(4)[:, None, None]
    kv = caches.write(cache.layers[0], k, v, caches.slots(cache, 4))
    for new, old in zip(caches.read(kv, jnp.float32), (k, v), strict=True):
        step = np.abs(old).max(-1, keepdims=True) / 127
        assert np.all(np.abs(new[:, :4] - old) <= 0.501 * step) and np.abs(new[:, 4:]).max() == 0


def test_generate_takes_it_as_an_option_and_writes_the_same_text():
    model, params = tiny("llama")
    plain, small = (
        generate(model, params, [[5, 9, 11], [7]], max_new_tokens=6, cache_dtype=kind) for kind in ("", "int8")
    )
    np.testing.assert_array_equal(plain.tokens, small.tokens)
    gap = np.abs(plain.logprobs - small.logprobs)
    assert 0 < gap.max() < 0.1
