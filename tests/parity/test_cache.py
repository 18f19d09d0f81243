"""Decoding with a cache, chunk by chunk and token by token, against transformers' full forward pass."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from research.core import tree
from tests.parity.zoo import BY_NAME, both, make_batch, quick_jit, run_torch

pytestmark = pytest.mark.oracle

GENERATORS = [name for name, case in BY_NAME.items() if case.head == "lm" and name.endswith("-padded")]
PREFILL = 4


@partial(quick_jit, static_argnums=0)
def _advance(model: Any, params: Any, cache: Any, tokens: jax.Array, segments: jax.Array) -> tuple[jax.Array, Any]:
    out = model.apply(params, {"tokens": tokens, "segment_ids": segments}, cache=cache)
    return model.logits(params, out.hidden), out.cache


@pytest.mark.parametrize("name", GENERATORS)
def test_cached_logits_equal_the_full_forward_of_transformers(name: str) -> None:
    theirs, model, params = both(name)
    pair = make_batch(BY_NAME[name])
    wanted = run_torch(theirs, pair.theirs).logits.detach().numpy()
    tokens, segments = jnp.asarray(pair.ours["tokens"]), jnp.asarray(pair.ours["segment_ids"])
    layers = tree.unstack(params)
    batch = {key: jnp.asarray(value) for key, value in pair.ours.items() if key != "labels"}
    cache = quick_jit(partial(model.start, length=tokens.shape[1] + 2))(layers, batch)

    seen = []
    for start, end in [(0, PREFILL), *((i, i + 1) for i in range(PREFILL, tokens.shape[1]))]:
        logits, cache = _advance(model, layers, cache, tokens[:, start:end], segments[:, start:end])
        seen.append(np.asarray(logits))
    got = np.concatenate(seen, axis=1)
    np.testing.assert_allclose(got[pair.real], wanted[pair.real], atol=1e-4, rtol=0)
