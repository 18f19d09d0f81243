"""Two towers: the loss is `info_nce` of an embedder's vectors whatever the padding, and training tells texts apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data.byte_tokenizer import ByteTokenizer
from research.decoding.embedder import Embedder
from research.models import build, preset
from research.objectives import info_nce
from research.recipes.contrastive import contrastive_loss, pair_batch
from research.training import optim
from research.training.state import create
from research.training.step import make_step

SMALL = {"d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32, "max_length": 32}
TOKENIZER = ByteTokenizer()
DROPOUT = {"embed_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0}
CONFIG = preset("bert-base").replace(vocab_size=TOKENIZER.vocab_size, head="none", **SMALL, **DROPOUT)


@pytest.fixture(scope="module")
def embedder():
    model = build(CONFIG)
    return Embedder(model, model.init(jax.random.key(0)), TOKENIZER, 32)


def pairs(rng, n):
    """A letter and a text that holds its capital among digits: nothing that they share."""
    letters = rng.choice(list("abcdefghijklmnopqrstuvwxyz"), n, replace=False)
    return [(x, f"{rng.integers(100)}{x.upper() * 3}{rng.integers(1000)}") for x in letters]


def coded(embedder, given, lengths=(8, 16), hard=(), **more):
    queries = [embedder.encode(query) for query, _ in given]
    passages = [[embedder.encode(passage)] for _, passage in given]
    for i, text in hard:
        passages[i].append(embedder.encode(text))
    return pair_batch(queries, passages, lengths, **more)


@pytest.mark.parametrize("hard", [(), ((0, "aab"), (3, "zz"), (3, "q"))])
def test_the_loss_is_that_of_the_embedders_vectors(embedder, hard):
    given = pairs(np.random.default_rng(0), 6)
    groups = [0, 1, 2, 0, 4, 5]
    loss_fn = jax.jit(contrastive_loss(embedder.model, temperature=0.3), static_argnums=2)
    batch = coded(embedder, given, hard=hard, groups=groups)
    loss, aux = loss_fn(embedder.params, batch, None)
    queries, passages = (jnp.asarray(embedder([pair[side] for pair in given])) for side in (0, 1))
    more = {}
    if hard:
        there = np.zeros((6, 2))
        negatives = np.zeros((6, 2, 16), np.float32)
        for i, h, text in ((0, 0, "aab"), (3, 0, "zz"), (3, 1, "q")):
            there[i, h], negatives[i, h] = 1, embedder([text])[0]
        more = {"negatives": jnp.asarray(negatives), "negative_mask": jnp.asarray(there)}
    wanted, _ = info_nce(queries, passages, temperature=0.3, symmetric=True, groups=jnp.asarray(groups), **more)
    np.testing.assert_allclose(loss, wanted, rtol=1e-4)
    assert aux["weight"] == 6
    wide, _ = loss_fn(embedder.params, coded(embedder, given, (12, 24), hard, groups=groups), None)
    np.testing.assert_allclose(wide, loss, rtol=1e-5)


def test_training_finds_the_passages_of_new_pairs(embedder):
    rng = np.random.default_rng(1)
    loss_fn = contrastive_loss(embedder.model)
    optimizer = optim.make({"name": "adamw", "schedule": "constant", "learning_rate": 1e-2}, embedder.params, steps=30)
    step = make_step(loss_fn, optimizer)
    copied = jax.tree.map(jnp.copy, embedder.params)
    state, frozen = create(copied, optimizer, rng=jax.random.key(1))
    for _ in range(30):
        state, _ = step(state, frozen, coded(embedder, pairs(rng, 16)))
    held_out, scored = coded(embedder, pairs(np.random.default_rng(2), 16)), jax.jit(loss_fn, static_argnums=2)
    before, after = (
        float(scored(params, held_out, None)[1]["metrics"]["accuracy"][0]) / 16
        for params in (embedder.params, state.params)
    )
    assert before < 0.3 < 0.8 < after
