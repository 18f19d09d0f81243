"""PaLM, which transformers lacks, against a forward pass written here from the paper, in float64 numpy.

See *PaLM: Scaling Language Modeling with Pathways*, Chowdhery et al., https://arxiv.org/abs/2204.02311, section 2.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models import build, preset

SIZES = {"n_layers": 3, "d_model": 24, "n_heads": 4, "head_dim": 6, "d_ff": 40, "vocab_size": 53, "max_length": 32}


def layer_norm(x, scale):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * scale


def rotate(vector, position):
    """One head at one position: each pair (i, i + H/2) as a complex number times e^(i p θ_i)."""
    half = len(vector) // 2
    numbers = vector[:half] + 1j * vector[half:]
    angles = position * 10_000.0 ** (-np.arange(half) / half)
    turned = numbers * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag])


def palm_logits(params, tokens, heads, head_dim):
    """Logits [T, V] of one sequence, position by position and head by head."""
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    table = weights["embed"]["tokens"]["embedding"]
    run = weights["decoder"]["layers"]["00"]
    x = table[tokens]
    for layer in range(len(run["mlp"]["up"]["kernel"])):
        w = jax.tree.map(lambda leaf, layer=layer: leaf[layer], run)
        h = layer_norm(x, w["attention_norm"]["scale"])
        q = (h @ w["attention"]["q"]["kernel"]).reshape(-1, heads, head_dim)
        k, v = h @ w["attention"]["k"]["kernel"], h @ w["attention"]["v"]["kernel"]  # one head for all queries
        attended = np.zeros_like(q)
        for t in range(len(tokens)):
            keys = np.stack([rotate(k[s], s) for s in range(t + 1)])
            for n in range(heads):
                scores = keys @ rotate(q[t, n], t) / np.sqrt(head_dim)
                p = np.exp(scores - scores.max())
                attended[t, n] = p @ v[: t + 1] / p.sum()
        gate, up = h @ w["mlp"]["gate"]["kernel"], h @ w["mlp"]["up"]["kernel"]
        feed = (gate / (1 + np.exp(-gate)) * up) @ w["mlp"]["down"]["kernel"]
        # The parallel form: both sublayers read the same normed input.
        x = x + attended.reshape(len(tokens), -1) @ w["attention"]["o"]["kernel"] + feed
    x = layer_norm(x, weights["decoder"]["final_norm"]["scale"])
    # Shared with the embedding of standard deviation 1, so the paper scales the logits by 1/√D.
    return x @ table.T / np.sqrt(table.shape[1])


@pytest.fixture(scope="module")
def palm():
    model = build(preset("palm-8b").replace(**SIZES, logit_scale=SIZES["d_model"] ** -0.5))
    params = jax.jit(model.init)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [leaf + 0.2 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return model, jax.tree.unflatten(structure, drawn)


@pytest.mark.parametrize(("rows", "length"), [(1, 13), (5, 6)])
def test_palm_logits_equal_an_independent_forward(palm, rows: int, length: int) -> None:
    model, params = palm
    tokens = np.random.default_rng(0).integers(0, SIZES["vocab_size"], (rows, length)).astype(np.int32)
    forward = jax.jit(lambda p, t: model.logits(p, model.apply(p, {"tokens": t}).hidden))
    got = np.asarray(forward(params, jnp.asarray(tokens)))
    want = np.stack([palm_logits(params, row, SIZES["n_heads"], SIZES["head_dim"]) for row in tokens])
    assert np.std(want) > 0.1
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=0)
