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
from research.weights.awq import clipped
from research.weights.calibrate import Statistic, clipping
from research.weights.gptq import gptq, output_error
from research.weights.grid import values
from research.weights.packed import as_rows
from research.weights.quantize import layer_by_layer, packed_weights
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
    some = [r".*/attention/(q|o)/kernel", r".*/mlp/(up|down)/kernel"]
    near = weights.attach(params, {"method": f"int{bits}", "target": some}, key)
    best = weights.attach(params, {"method": "gptq", "bits": bits, "target": some}, key, statistics=facts)
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


def scaled(params, aware, site, readers):
    """What AWQ multiplied the readers' features by, from the norm that keeps it."""
    norms = [tree.paths(p)[f"decoder/layers/00/{site}/scale"] for p in (params, aware)]
    return dict.fromkeys(readers, norms[0] / norms[1])


@pytest.mark.parametrize("bits", [3, 4])
def test_awq_beats_rounding_layer_by_layer_and_clipping_helps_more(story, bits):
    """Errors of the outputs, with rounded weights divided again by what the norm was divided by."""
    model, params, _, _, facts = story
    given = {"config": model.config, "statistics": facts}
    near, aware, cut = (
        weights.attach(params, {"method": m, **o}, jax.random.key(0), **given)
        for m, o in ((f"int{bits}", {}), ("awq", {"bits": bits}), ("awq", {"bits": bits, "clip": True}))
    )
    factor = scaled(params, aware, "mlp_norm", ("mlp/gate",))  # what "up" writes is scaled too, for "down"
    factor |= scaled(params, aware, "attention_norm", ("attention/q", "attention/v"))
    total = np.zeros(3)
    for name, s in factor.items():
        path = f"decoder/layers/00/{name}/kernel"
        rows, gram = as_rows(tree.paths(params)[path], False), facts[f"decoder/layers/{name}/kernel"].gram
        each = [
            float(jnp.sum(output_error(rows, packed_weights(p)[path].rows() / by, gram)))
            for p, by in ((near, 1), (aware, s[:, None]), (cut, s[:, None]))
        ]
        assert each[1] < each[0] and (each[2] == each[1] if name.endswith("/q") else each[2] < each[1]), name
        total += each
    assert total[2] < 0.97 * total[1] < 0.97 * 0.95 * total[0]


@pytest.mark.parametrize("symmetric", [False, True])
def test_clipping_takes_the_share_that_a_plain_search_takes(symmetric):
    rows, x = numbers(3, 5, 24), numbers(4, 60, 24) @ numbers(5, 24, 24)
    rows[0, 3], rows[2, 20] = 8.0, -9.0  # outliers, which cutting helps
    ours = np.asarray(clipped(jnp.asarray(rows), jnp.asarray(x.T @ x), 3, 8, symmetric))
    shares = []
    for o, g in np.ndindex(5, 3):
        part = slice(8 * g, 8 * g + 8)
        w, inputs = rows[o, part].astype(np.float64), x[:, part].astype(np.float64)

        def error(share, w=w, inputs=inputs):
            largest = np.abs(w).max() * share
            cut = np.clip(w, -largest, largest)
            span = 2 * largest / 6 if symmetric else (max(cut.max(), 0) - min(cut.min(), 0)) / 7
            step = np.float64(np.float16(span))
            zero = 4 if symmetric else np.clip(np.rint(-min(cut.min(), 0) / step), 0, 7)
            code = np.clip(np.rint(cut / step) + zero, 1 if symmetric else 0, 7)
            return np.sum((inputs @ (w - (code - zero) * step)) ** 2)

        found = np.abs(ours[o, part]).max() / np.abs(w).max()
        best = min(error(1 - 0.05 * k) for k in range(10))
        assert error(found) <= 1.001 * best
        shares.append(found)
    assert min(shares) < 0.9


def test_layer_by_layer_each_rule_sees_the_layers_before_it_rounded(story):
    """The second layer is calibrated on what the rounded first one gives."""
    _, params, run, batches, _ = story
    rules = [{"method": "int8", "target": "embed/.*"}, {"method": "smoothquant"}, {"method": "gptq", "bits": 3}]
    listed = layer_by_layer(rules, 2)
    assert [(r["method"], r.get("layers")) for r in listed[:2]] == [("int8", []), ("smoothquant", [])]
    assert [r["layers"] for r in listed[2:]] == [[0, 1], [1, 2]]
    given = {"run": run, "batches": batches[:1]}
    recipe = {"method": "gptq", "bits": 3, "target": ".*/up/kernel"}
    whole = weights.quantize(params, {**recipe, "layers": [0, 2]}, **given)
    steps = weights.quantize(params, layer_by_layer(recipe, 2), **given)
    first, second = (packed_weights(steps)[f"decoder/layers/0{i}/mlp/up/kernel"].codes[0] for i in range(2))
    once = packed_weights(whole)["decoder/layers/00/mlp/up/kernel"].codes
    assert np.array_equal(first, once[0]) and not np.array_equal(second, once[1])
    begun = weights.quantize(params, layer_by_layer(recipe, 1), **given)
    facts = weights.calibrate(run, begun, batches[:1], target=".*/up/kernel")
    alone = weights.attach(begun, {**recipe, "layers": [1, 2]}, jax.random.key(0), statistics=facts)
    assert np.array_equal(packed_weights(alone)["decoder/layers/01/mlp/up/kernel"].codes[0], second)


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
