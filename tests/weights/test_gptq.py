"""GPTQ against a plain numpy loop, GPTQ and AWQ against rounding on a real model; SmoothQuant changes nothing."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import weights
from research.core import tree
from research.data.llama2c_tokenizer import Llama2cTokenizer
from research.interop.llama2c import load_llama2c
from research.models import build
from research.recipes.pretrain import language_model_loss
from research.training import optim
from research.training.state import create
from research.training.step import make_step
from research.weights.calibrate import Statistic, clipping
from research.weights.gptq import gptq, output_error
from research.weights.grid import values
from research.weights.packed import as_rows
from research.weights.quantize import packed_weights
from tests.weights.test_grouped import numbers


def by_loop(rows, gram, bits, damping, order):
    """The paper's algorithm, a column at a time without blocks, one grid for each row, in float64."""
    w, h = rows[:, order].astype(np.float64), gram[np.ix_(order, order)].astype(np.float64)
    h = h + np.eye(len(h)) * damping * np.mean(np.diag(h))
    high, low = np.maximum(rows.max(1), 0), np.minimum(rows.min(1), 0)
    step = np.float16((high - low) / np.float32(2**bits - 1)).astype(np.float64)
    zero = np.clip(np.rint(-low / step), 0, 2**bits - 1)
    out = np.zeros(w.shape)
    for j in range(w.shape[1]):
        inverse = np.linalg.inv(h[j:, j:])  # of what is left, from scratch
        code = np.clip(np.rint(w[:, j] / step) + zero, 0, 2**bits - 1)
        out[:, j] = (code - zero) * step
        w[:, j:] -= np.outer((w[:, j] - out[:, j]) / inverse[0, 0], inverse[0])
    return out[:, np.argsort(order)]


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("act_order", [True, False])
def test_gptq_is_its_algorithm(bits, act_order):
    rows, x = numbers(bits, 7, 150), numbers(9, 400, 150) @ numbers(10, 150, 150) / 12
    gram = x.T @ x
    codes, grids = gptq(jnp.asarray(rows), jnp.asarray(gram), bits=bits, act_order=act_order)
    ours = np.asarray(values(codes[:, None], grids)[:, 0])
    order = np.argsort(-np.diag(gram), kind="stable") if act_order else np.arange(150)
    theirs = by_loop(rows, gram, bits, 0.01, order)
    # A tie that falls to the other side changes what the columns after it make up for, so few values may differ.
    assert np.mean(~np.isclose(ours, theirs, atol=1e-4)) < 0.02
    ours, theirs = (float(output_error(rows, q.astype(np.float32), gram)) for q in (ours, theirs))
    assert ours == pytest.approx(theirs, rel=0.02)


@pytest.fixture(scope="module")
def story(data_dir: Path):
    """The real model, the text published with it, and its calibration run."""
    folder = data_dir / "stories260K"
    config, params = load_llama2c(folder / "checkpoint_v1.bin")
    model = build(config, remat="full")
    ids = Llama2cTokenizer.load(folder / "tokenizer.bin").encode((folder / "stories260K.md.txt").read_text())
    rows = jnp.asarray(ids[: 8 * 96], jnp.int32).reshape(8, 96)
    run = lambda p, batch: model.apply(p, batch).hidden  # noqa: E731
    batches = [{"tokens": rows[:4]}, {"tokens": rows[4:]}]
    return model, params, run, batches, weights.calibrate(run, params, batches)


def test_statistics_are_those_of_the_inputs(story):
    model, params, _, batches, facts = story
    tokens = jnp.concatenate([batch["tokens"] for batch in batches])
    states = np.asarray(model.apply(params, {"tokens": tokens}, hidden_states=True).hidden_states, np.float64)
    scale = np.asarray(params["decoder"]["layers"]["00"]["attention_norm"]["scale"], np.float64)
    found = facts["decoder/layers/attention/q/kernel"]
    for layer in (0, 4):
        x = states[layer].reshape(-1, 64)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + model.config.norm_eps) * scale[layer]
        np.testing.assert_allclose(found.gram[layer], x.T @ x, rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(found.peak[layer], np.abs(x).max(0), rtol=1e-4)
        np.testing.assert_allclose(found.total[layer], np.abs(x).sum(0), rtol=1e-4)
        assert found.count[layer] == x.shape[0] and found.histogram[layer].sum() == x.size
        one = jax.tree.map(lambda leaf, i=layer: leaf[i], found)
        assert float(clipping(one, "percentile", percentile=99.0)) == pytest.approx(np.quantile(np.abs(x), 0.99), 0.02)

        def error(clip, x=x):
            step = clip / 7
            return np.mean((x - np.clip(np.rint(x / step), -7, 7) * step) ** 2)

        best = min(error(np.abs(x).max() * f) for f in np.arange(1, 101) / 100)
        assert error(float(clipping(one, "mse", levels=7))) <= 1.01 * best


def errors(params, quantized, facts, name):
    """Output error of every layer, relative to the output."""
    path = f"decoder/layers/00/{name}/kernel"
    rows, gram = as_rows(tree.paths(params)[path], False), facts[f"decoder/layers/{name}/kernel"].gram
    packed = packed_weights(quantized)[path].rows()
    return np.asarray(output_error(rows, packed, gram) / output_error(rows, 0 * rows, gram))


@pytest.mark.parametrize("bits", [3, 4])
def test_gptq_beats_rounding_layer_by_layer(story, bits):
    _, params, _, _, facts = story
    key = jax.random.key(0)
    near = weights.attach(params, {"method": f"int{bits}"}, key)
    best = weights.attach(params, {"method": "gptq", "bits": bits}, key, statistics=facts)
    for name in ("attention/q", "attention/o", "mlp/up", "mlp/down"):
        ratio = errors(params, best, facts, name) / errors(params, near, facts, name)
        assert np.all(ratio < 1) and ratio.mean() < 0.8, (name, ratio)


def test_smoothquant_moves_numbers_and_changes_nothing(story):
    model, params, run, batches, facts = story
    smooth = weights.attach(params, {"method": "smoothquant"}, jax.random.key(0), config=model.config, statistics=facts)
    outputs = [jax.jit(run)(p, batches[0]) for p in (params, smooth)]
    assert weights.drift(*outputs) < 1e-4
    norms = [p["decoder"]["layers"]["00"]["mlp_norm"]["scale"] for p in (params, smooth)]
    assert np.abs(norms[0] / norms[1] - 1).max() > 0.1
    after = weights.calibrate(run, smooth, batches)["decoder/layers/mlp/up/kernel"]
    spread = lambda s: np.max(np.asarray(s.peak), -1) / np.median(np.asarray(s.peak), -1)  # noqa: E731
    assert spread(after).mean() < spread(facts["decoder/layers/mlp/up/kernel"]).mean()


def test_awq_moves_the_output_less_than_rounding(story):
    model, params, run, batches, facts = story
    given = {"config": model.config, "statistics": facts}
    near, aware = (
        weights.attach(params, {"method": m, **o}, jax.random.key(0), **given)
        for m, o in (("int3", {}), ("awq", {"bits": 3}))
    )
    plain, first, second = (jax.jit(run)(p, batches[0]) for p in (params, near, aware))
    assert weights.drift(plain, second) < 0.95 * weights.drift(plain, first)


def test_a_histogram_of_one_number_clips_at_it():
    x = 0.3
    bins = np.zeros(64 * 48, np.float32)
    bins[int((np.log2(x) + 24) * 64)] = 10
    fact = Statistic(*(jnp.asarray(a) for a in (np.eye(1) * 0.9, [x], [3.0], bins, 10.0)))
    for how in ("absmax", "percentile", "mse"):
        assert float(clipping(fact, how)) == pytest.approx(x, rel=0.02)


def test_training_aware_of_rounding_recovers_what_three_bits_lose(story):
    model, params, _, batches, _ = story
    recipe = [{"method": "qat", "bits": 3}, {"method": "full"}]
    optimizer_config = {"name": "adamw", "learning_rate": 1e-3, "schedule": "constant", "weight_decay": 0.0}
    aware = weights.attach(params, recipe, jax.random.key(0))
    learning = tree.split(aware, weights.trainable(aware, recipe))[0]
    optimizer = optim.make(optimizer_config, learning)
    state, frozen = create(aware, optimizer, rng=jax.random.key(1), trainable=weights.trainable(aware, recipe))
    step = make_step(language_model_loss(model), optimizer)
    shifted = lambda b: b | {"targets": jnp.roll(b["tokens"], -1, 1), "loss_mask": jnp.ones(b["tokens"].shape)}  # noqa: E731
    for _ in range(25):
        state, _ = step(state, frozen, shifted(batches[0]))
    trained = weights.strip(tree.merge(state.params, frozen))
    loss = jax.jit(lambda p: language_model_loss(model)(p, shifted(batches[1]), None)[0] / batches[1]["tokens"].size)
    post, after = (weights.attach(p, {"method": "int3"}, jax.random.key(0)) for p in (params, trained))
    plain, lossy, recovered = (float(loss(p)) for p in (params, post, after))
    assert recovered - plain < 0.7 * (lossy - plain), (plain, lossy, recovered)
