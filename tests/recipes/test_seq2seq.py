"""Fine-tuning of encoder-decoders: nothing that does not matter changes the loss or a gradient; parts of a mixture."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core import mesh as meshes
from research.data.seq2seq import Pair, PairRows
from research.data.sources import stack
from research.models import build
from research.recipes.assemble import heads
from research.recipes.pretrain import language_model_loss
from research.training import optim, state
from research.training.step import make_step
from tests.models.conftest import tiny, tiny_config
from tests.parity.zoo import quick_jit

FAMILIES = ("t5", "bart")


def pairs_of(seed=0):
    rng = np.random.default_rng(seed)
    sizes = [(5, 3), (2, 6), (7, 1), (3, 4), (1, 2), (6, 5), (4, 4), (2, 2)]
    return [Pair(*(rng.integers(3, 61, n).astype(np.int32) for n in size)) for size in sizes]


def batch_of(pairs, shape=(12, 10), **options):
    rows = PairRows(pairs, *shape, **({"decoder_start_id": 2, "pack": False} | options))
    return stack([rows.row(i) for i in range(len(rows))])


def graded(model):
    loss_fn = language_model_loss(model, chunk=4)

    def value(params, batch):
        total, aux = loss_fn(params, batch, None)
        return total / aux["weight"], aux["metrics"]

    return quick_jit(jax.value_and_grad(value, has_aux=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_packing_and_order_change_nothing(family):
    model, params = tiny(family)
    run, pairs = graded(model), pairs_of()
    expected = run(params, batch_of(pairs))
    packed = batch_of(pairs, (15, 13), pack=True)
    assert len(packed["tokens"]) < len(pairs) and packed["segment_ids"].max() > 1
    others = [batch_of(pairs, (15, 13), pad_id=7), batch_of(pairs[::-1], (15, 13)), packed]
    # All in one shape, the rest being empty rows: one program for them, another for what is expected.
    padded, turned, packed = (
        {name: np.pad(array, [(0, 10 - len(array)), (0, 0)]) for name, array in other.items()} for other in others
    )
    for other in (padded, packed, turned):
        chex.assert_trees_all_close(run(params, other), expected, rtol=1e-5, atol=1e-5)
    # A test that cannot fail holds nothing: without the segments of the encoder the packed pairs see each other.
    mixed = packed | {"input_segment_ids": (packed["input_segment_ids"] > 0).astype(np.int32)}
    assert abs(float(run(params, mixed)[0][0]) - float(expected[0][0])) > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_a_loop(family):
    model, params = tiny(family)
    pairs, losses = pairs_of()[:4], []  # each has a shape of its own
    for pair in pairs:
        tokens = np.concatenate([[2], pair.targets[:-1]])
        output = model.apply(params, {"inputs": jnp.asarray(pair.inputs[None]), "tokens": jnp.asarray(tokens[None])})
        z = np.asarray(model.logits(params, output.hidden)[0], np.float64)
        z -= z.max(-1, keepdims=True)
        losses += [np.log(np.exp(z[t]).sum()) - z[t, y] for t, y in enumerate(pair.targets)]
    (loss, _), _ = graded(model)(params, batch_of(pairs, pack=True))
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)


def updated(family, axes, accumulate):
    model = build(tiny_config(family, vocab_size=64))
    mesh = meshes.make_mesh(axes) if axes else None
    optimizer = optim.make({"name": "sgd", "learning_rate": 1.0, "schedule": "constant"}, model.abstract(), steps=1)
    begin, frozen = state.create(
        lambda: model.init(jax.random.key(0)), optimizer, rng=jax.random.key(1), mesh=mesh, heads=heads(model.config)
    )
    step = make_step(language_model_loss(model, chunk=4), optimizer, accumulate=accumulate, mesh=mesh)
    after, metrics = step(begin, frozen, batch_of(pairs_of(), (12, 8)))
    return float(metrics["loss"]), jax.device_get(after.params)


@pytest.mark.parametrize("family", FAMILIES)
def test_micro_batches_and_a_mesh_change_nothing(family):
    # Plain gradient descent at rate 1: a difference of weights is a difference of gradients.
    expected = updated(family, None, 1)
    for axes, accumulate in ((None, 4), ({"data": 2, "fsdp": 2, "tensor": 2}, 1), ({"data": 2}, 2)):
        found = updated(family, axes, accumulate)
        chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_the_loss_of_each_part_is_that_of_its_rows(family):
    model, params = tiny(family)
    batch = batch_of(pairs_of())
    if family == "llama":
        batch = {name: array for name, array in batch.items() if not name.startswith("input")}
    batch["loss_mask"] = batch["loss_mask"] * np.linspace(0.5, 1, 10, dtype=np.float32)
    part = np.array([0, 2, 2, 0, 0, 2, 0, 2], np.int32)
    names = ("first", "absent", "last")
    run = quick_jit(lambda p, b: language_model_loss(model, chunk=4, parts=names)(p, b, None))
    total, aux = run(params, batch | {"part": part})
    for i, name in enumerate(names):
        value, weight = aux["metrics"][f"loss/{name}"]
        alone = [run(params, {k: v[r : r + 1] for k, v in batch.items()}) for r in np.flatnonzero(part == i)]
        np.testing.assert_allclose(value, sum(float(t) for t, _ in alone), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(weight, sum(float(a["weight"]) for _, a in alone), rtol=1e-6)
    np.testing.assert_allclose(sum(v for v, _ in (aux["metrics"][f"loss/{n}"] for n in names)), total, rtol=1e-5)
    assert jnp.isfinite(total) and "loss/first" not in run(params, batch)[1]["metrics"]
