"""The loss on pairs of texts: each text scored alone, and padding counts for nothing."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core import mesh as meshes
from research.data.packing import Example, pad_batch
from research.data.preference_rows import Coded, CodedPair, PreferencePairRows, PreferenceRows
from research.data.sources import stack
from research.models import build
from research.recipes.assemble import heads
from research.recipes.reward import pairwise_loss
from research.training import optim, state
from research.training.step import make_step
from tests.models.conftest import tiny_config
from tests.parity.zoo import quick_jit


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_loss_is_that_of_texts_scored_one_by_one(family):
    model = build(tiny_config(family, head="scalar"))
    params = jax.jit(model.init)(jax.random.key(0))
    generator = np.random.default_rng(0)
    texts = [generator.integers(3, 61, n).tolist() for n in (5, 3, 1, 7, 4, 4, 2, 2)]
    preferred, mask = np.array([1, 0, 0.5, 1], np.float32), np.array([1, 1, 1, 0], np.float32)

    def loss(length):
        batch = {k: jnp.asarray(v.reshape(4, 2, -1)) for k, v in pad_batch(texts, length).items()}
        total, aux = pairwise_loss(model)(params, batch | {"preferred": preferred, "loss_mask": mask}, None)
        return float(total), aux

    one = jax.jit(lambda b: model.classify(params, model.apply(params, b), b)[0])
    scores = [float(one({k: jnp.asarray(v) for k, v in pad_batch([text], 8).items()})) for text in texts]
    pairs = list(zip(scores[::2], scores[1::2], preferred, strict=True))[:3]
    wanted = sum(p * np.log1p(np.exp(b - a)) + (1 - p) * np.log1p(np.exp(a - b)) for a, b, p in pairs)
    (short, aux), (long, _) = loss(7), loss(9)
    np.testing.assert_allclose([short, long], wanted, rtol=1e-4)
    assert float(aux["weight"]) == 3 and float(aux["metrics"]["accuracy"][1]) == 2  # a tie has no right answer
    right = [(a > b) == (p > 0.5) for a, b, p in pairs if p != 0.5]
    assert float(aux["metrics"]["accuracy"][0]) == sum(right)


def test_the_answer_is_read_by_the_decoder_up_to_its_last_token():
    model = build(tiny_config("t5", head="scalar", pooling="last"))
    params = quick_jit(model.init)(jax.random.key(0))
    generator = np.random.default_rng(0)
    prompts = [generator.integers(3, 61, 4).astype(np.int32) for _ in range(3)]
    answers = [[generator.integers(3, 61, n).astype(np.int32) for n in pair] for pair in ((3, 5), (1, 2), (6, 3))]
    coded = [CodedPair(p, *pair, 1.0) for p, pair in zip(prompts, answers, strict=True)]
    rows = PreferencePairRows(coded, 6, 8, decoder_start_id=2)
    batch = stack([rows.row(i) for i in range(3)])
    batch["loss_mask"][2, 1] = 0  # of the last pair one answer has no token: it counts for nothing
    margin = np.array([0.5, 0.2, 9], np.float32)
    run = quick_jit(lambda p, b: pairwise_loss(model, center=0.1)(p, b, None))
    total, aux = run(params, batch | {"margin": margin})
    # Each answer alone, all that its row holds and nothing behind it: [start, y_1 .. y_n-1].
    one = quick_jit(lambda p, b: model.classify(p, model.apply(p, b), b)[0])
    scores = []
    for prompt, pair in zip(prompts, answers, strict=True):
        for answer in pair:
            n = len(answer)
            tokens = np.zeros((1, 8), np.int32)
            tokens[0, :n] = [2, *answer[:-1]]
            alone = {"inputs": prompt[None], "tokens": tokens, "segment_ids": (np.arange(8)[None] < n).astype(np.int32)}
            scores.append(float(one(params, alone)))
    wanted = sum(
        np.log1p(np.exp(b - a + m)) + 0.1 * (a + b) ** 2
        for a, b, m in zip(scores[0:4:2], scores[1:4:2], margin, strict=False)
    )
    np.testing.assert_allclose(total, wanted, rtol=1e-4)
    assert aux["weight"] == 2 and aux["metrics"]["accuracy"][1] == 2


def test_micro_batches_meshes_and_pairs_without_an_answer_change_nothing():
    model = build(tiny_config("llama", vocab_size=64, head="scalar"))
    # Plain gradient descent at rate 1: a difference of weights is a difference of gradients.
    rule = {"name": "sgd", "learning_rate": 1.0, "schedule": "constant", "clip": None}
    optimizer = optim.make(rule, model.abstract(), steps=1)
    generator = np.random.default_rng(0)
    answer = lambda n: Example(generator.integers(3, 64, n).astype(np.int32), np.arange(n) >= 2)  # noqa: E731
    sizes = ((5, 3), (4, 7), (3, 6), (9, 9), (8, 3))
    coded = [Coded(answer(n), answer(m), 2, float(generator.random())) for n, m in sizes]
    rows = PreferenceRows(coded, 10)
    alone = stack([rows.row(i) for i in range(5)])
    # Beside three pairs of noise, which lack an answer: 3, 2, 0 and 0 of 2 count on the four parts of a mesh.
    order = [0, 1, 2, 3, 4, 0, 1, 2]
    padded = {name: x[order] for name, x in alone.items()}
    padded["tokens"][5:] = generator.integers(3, 64, padded["tokens"][5:].shape)
    padded["loss_mask"][5:7, 0], padded["loss_mask"][7] = 0, 0

    def updated(batch, axes, accumulate):
        mesh = meshes.make_mesh(axes) if axes else None
        begin, frozen = state.create(
            lambda: model.init(jax.random.key(0)),
            optimizer,
            rng=jax.random.key(1),
            mesh=mesh,
            heads=heads(model.config),
        )
        step = make_step(pairwise_loss(model, center=0.1), optimizer, accumulate=accumulate, mesh=mesh)
        after, metrics = step(begin, frozen, batch)
        return {name: float(metrics[name]) for name in ("loss", "weight", "accuracy")}, jax.device_get(after.params)

    expected = updated(alone, None, 1)
    assert expected[0]["weight"] == 5
    for axes, accumulate in ((None, 4), ({"data": 2, "fsdp": 2, "tensor": 2}, 1), ({"data": 2, "tensor": 2}, 2)):
        found = updated(padded, axes, accumulate)
        chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5, custom_message=f"{axes} {accumulate}")


def test_another_head_is_refused():
    with pytest.raises(ValueError, match="ranking needs a head 'scalar'; the model has 'lm'"):
        pairwise_loss(build(tiny_config("llama")))
