"""What does not matter changes no supervised loss and no gradient: padding, packing, order, micro-batches, meshes.

Encoder-decoders have a file of their own, `test_seq2seq.py`.
"""

import chex
import jax
import numpy as np
import pytest

from research.core import mesh as meshes
from research.data.packing import Example
from research.data.rows import PackedRows, PaddedRows
from research.data.sources import stack
from research.models import build
from research.recipes.assemble import heads
from research.recipes.classify import classification_loss, labelled_batch
from research.recipes.pretrain import language_model_loss
from research.training import optim, state
from research.training.step import make_step
from tests.models.conftest import tiny_config
from tests.parity.zoo import quick_jit

V, C, MASK = 64, 3, 2
RNG = np.random.default_rng(0)
TEXTS = [RNG.integers(3, V, n).astype(np.int32) for n in (5, 2, 8, 6, 3, 9, 4, 7)]
ASKED = [RNG.random(len(ids)) < 0.6 for ids in TEXTS]  # unequal numbers: a mean of means would differ
LABELS = [RNG.integers(0, C, len(ids)).astype(np.int32) for ids in TEXTS]
IN_ORDER = list(range(len(TEXTS)))


def causal(length, order, pack):
    found = [Example(TEXTS[i], ASKED[i].astype(np.float32)) for i in order]
    rows = (PackedRows if pack else PaddedRows)(found, length)
    return stack([rows.row(i) for i in range(len(rows))])


def laid(columns, length, order, pack):
    """Each text in a row of its own, or behind the one before it where there is room."""
    rows, room = [], 0
    for i in order:
        n = len(TEXTS[i])
        if not pack or room < n:
            rows.append([])
            room = length
        rows[-1].append(i)
        room -= n
    batch = {name: np.zeros((len(rows), length), column[0].dtype) for name, column in columns.items()}
    batch |= {name: np.zeros((len(rows), length), np.int32) for name in ("segment_ids", "positions")}
    for r, row in enumerate(rows):
        at = 0
        for segment, i in enumerate(row, start=1):
            here = (r, slice(at, at := at + len(TEXTS[i])))
            for name, column in columns.items():
                batch[name][here] = column[i]
            batch["segment_ids"][here], batch["positions"][here] = segment, np.arange(len(TEXTS[i]))
    return batch


def masked(length, order, pack):
    hidden = [np.where(asked, MASK, ids).astype(np.int32) for ids, asked in zip(TEXTS, ASKED, strict=True)]
    mask = [asked.astype(np.float32) for asked in ASKED]
    return laid({"tokens": hidden, "targets": TEXTS, "loss_mask": mask}, length, order, pack)


def of_tokens(length, order, pack):
    mask = [np.ones(len(ids), np.float32) for ids in TEXTS]
    return laid({"tokens": TEXTS, "labels": LABELS, "loss_mask": mask}, length, order, pack)


def of_texts(length, order, pack):
    del pack  # one label for each row
    return labelled_batch([TEXTS[i].tolist() for i in order], [int(LABELS[i][0]) for i in order], length, n_labels=C)


# name -> family, head, batch, whether several examples may share a row
LOSSES = {
    "causal": ("llama", None, causal, True),
    "masked": ("bert", None, masked, True),
    "token": ("bert", "token", of_tokens, True),
    "sequence": ("bert", "sequence", of_texts, False),
    "last token": ("llama", "sequence", of_texts, False),
    "scalar": ("llama", "scalar", of_texts, False),
}


def world(name):
    family, head, batch, packs = LOSSES[name]
    more = {"head": head, "n_labels": C} if head else {}
    model = build(tiny_config(family, vocab_size=V, **more))
    return model, classification_loss(model) if head else language_model_loss(model, chunk=4), batch, packs


@pytest.mark.parametrize("name", LOSSES)
def test_padding_packing_order_and_empty_rows_change_nothing(name):
    model, loss_fn, batch, packs = world(name)
    # Weights as they begin hardly attend to anything: with noise, what a text should not see would be seen.
    noise = np.random.default_rng(1)
    params = jax.tree.map(
        lambda w: w + (0.1 * noise.normal(size=w.shape)).astype(np.float32), jax.jit(model.init)(jax.random.key(0))
    )

    def mean(params, batch):
        total, aux = loss_fn(params, batch, None)
        return total / aux["weight"], aux["metrics"]

    run = quick_jit(jax.value_and_grad(mean, has_aux=True))
    plain = batch(12, IN_ORDER, False)
    expected = run(params, plain)
    # All in one shape, the rest being empty rows: one program for them, another for what is expected.
    shaped = lambda one: {k: np.pad(v, [(0, 11 - len(v))] + [(0, 0)] * (v.ndim - 1)) for k, v in one.items()}  # noqa: E731
    longer = shaped(batch(15, IN_ORDER, False))
    answers, junk = ("targets", 1) if "targets" in plain else ("labels", -7)
    others = {
        "turned": shaped(batch(15, IN_ORDER[::-1], False)),
        "longer, with empty rows": longer,
        "answers nobody asks for": longer | {answers: np.where(longer["loss_mask"] > 0, longer[answers], junk)},
    }
    if packs:
        packed = batch(15, IN_ORDER, True)
        assert len(packed["tokens"]) < len(TEXTS) and packed["segment_ids"].max() > 1
        others["packed"] = shaped(packed)
    for what, other in others.items():
        chex.assert_trees_all_close(run(params, other), expected, rtol=1e-5, atol=1e-5, custom_message=what)
    if packs:  # a test that cannot fail holds nothing: without segments, texts of one row see each other
        mixed = others["packed"] | {"segment_ids": (others["packed"]["segment_ids"] > 0).astype(np.int32)}
        assert abs(float(run(params, mixed)[0][0]) - float(expected[0][0])) > 1e-4


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "last token"])
def test_micro_batches_and_meshes_change_nothing(name):
    model, loss_fn, batch, _ = world(name)
    # Plain gradient descent at rate 1: a difference of weights is a difference of gradients.
    rule = {"name": "sgd", "learning_rate": 1.0, "schedule": "constant", "clip": None}
    optimizer = optim.make(rule, model.abstract(), steps=1)

    def updated(axes, accumulate):
        mesh = meshes.make_mesh(axes) if axes else None
        key = jax.random.key(1)
        begin, frozen = state.create(
            lambda: model.init(jax.random.key(0)), optimizer, rng=key, mesh=mesh, heads=heads(model.config)
        )
        step = make_step(loss_fn, optimizer, accumulate=accumulate, mesh=mesh)
        after, metrics = step(begin, frozen, batch(12, IN_ORDER, False))
        return float(metrics["loss"]), jax.device_get(after.params)

    expected = updated(None, 1)
    for axes, accumulate in ((None, 4), ({"data": 2, "fsdp": 2, "tensor": 2}, 2)):
        chex.assert_trees_all_close(updated(axes, accumulate), expected, rtol=1e-5, atol=1e-5)
