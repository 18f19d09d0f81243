"""Bits against quality: rows are full or count for nothing, cells measure what they say, the table is in order."""

import io

import numpy as np
import pytest
from rich.console import Console

from configs.quantize import get_config, methods
from experiments import quantize
from experiments.quantized import Cached, Sentences, Stories, texts_in_rows
from research import weights
from research.core import tree
from research.data.packing import Example
from research.models import build
from research.recipes.pretrain import language_model_loss
from research.training.evaluate import make_evaluate
from tests.models.conftest import tiny, tiny_config

LENGTH = 12
SETTINGS = {
    "length": LENGTH,
    "batch_size": 4,
    "calibration_rows": 4,
    "tune": {"steps": 2, "learning_rates": {"3": 1e-3}},
    "speed": {"rows": 2, "new_tokens": 3},
}


def example(ids):
    return Example(np.array(ids, np.int32), np.ones(len(ids), np.float32))


@pytest.fixture(scope="module")
def stories():
    """A tiny decoder with texts of different lengths."""
    model, params = tiny("llama", n_layers=2)
    rng = np.random.default_rng(0)
    texts = [example([1, *rng.integers(3, 60, n)]) for n in (LENGTH - 1, 5, 9, LENGTH - 1, 7, 3)]
    return Stories(model.config, params, SETTINGS, 1, texts, {"own samples": texts[:3], "published stories": texts[3:]})


def test_every_held_out_token_counts_once():
    examples = [example([1, 5, 6]), example([1, 7]), example([1]), example([1, 8, 9])]
    first, second = texts_in_rows(examples, 2, 4)
    assert first["tokens"].tolist() == [[1, 5, 0, 0], [1, 0, 0, 0]]
    assert first["targets"].tolist() == [[5, 6, 0, 0], [7, 0, 0, 0]] and first["loss_mask"].sum() == 3
    assert second["targets"].tolist() == [[8, 9, 0, 0], [0] * 4] and second["loss_mask"].tolist()[1] == [0] * 4


def test_calibration_rows_are_full_and_depend_on_the_seed(stories):
    first, again, other = (stories.calibration(seed)[0]["tokens"] for seed in (0, 0, 1))
    assert first.shape == (4, LENGTH) and first.min() > 0
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    rows = [([1, *[k] * k, 2], [0] * (k + 2), 0) for k in range(3, 9)]
    settings = {"lengths": (16,), "calibration_rows": 3}
    (batch,) = Sentences(tiny_config("bert"), {}, settings, {"train": rows}).calibration(0)
    for tokens, positions, segments in zip(*(batch[k] for k in ("tokens", "positions", "segment_ids")), strict=True):
        starts = np.flatnonzero(np.diff(segments, prepend=0))
        assert tokens.min() > 0 and (positions[starts] == 0).all() and (tokens[starts] == 1).all()
        assert (np.diff(positions)[np.diff(segments) == 0] == 1).all()


def test_a_cache_in_eight_bits_reads_almost_the_same(stories):
    """With whole numbers too large for eight bits the two differ, so the cache was read from."""
    model, held = build(stories.config), texts_in_rows(stories.held["own samples"], 4, LENGTH)
    plain, cached = (
        make_evaluate(language_model_loss(m), held)(stories.params)["loss"] for m in (model, Cached(model))
    )
    assert plain != cached and plain == pytest.approx(cached, rel=0.02)


def test_cells_measure_what_their_method_says(stories, tmp_path):
    chosen = {name: methods()[name] for name in ("f32", "int8", "GPTQ 3, layer by layer", "QAT 3")}
    grid = quantize.cells_of("own", stories, {"methods": chosen, "seeds": (0, 1), "own": SETTINGS})
    assert [cell.at["seed"] for cell in grid] == [0, 0, 0, 1, 0, 1]
    found = [{"method": n, **quantize.run_cell(stories, m, 0, timed=n == "f32")} for n, m in chosen.items()]
    by = {r["method"]: r for r in found}
    assert by["f32"]["bytes"] == 4 * tree.count(stories.params) and by["f32"]["bits"] == 32
    table = stories.config.vocab_size * stories.config.d_model
    expected = weights.quantize(stories.params, chosen["int8"]["recipe"])
    assert by["int8"]["bytes"] == tree.nbytes(expected) < by["f32"]["bytes"] - 3 * table + 4 * 61
    assert by["QAT 3"]["bits"] == by["GPTQ 3, layer by layer"]["bits"] < 5 < by["int8"]["bits"] < 10
    assert by["f32"]["loss"] != by["int8"]["loss"] == pytest.approx(by["f32"]["loss"], rel=0.02)
    assert by["QAT 3"]["loss"] != by["GPTQ 3, layer by layer"]["loss"]
    assert min(by["f32"][what] for what in stories.SPEED) > 0
    found = [by["f32"] | r for r in found]
    out = io.StringIO()
    quantize.report("own", found, stories.QUALITY, stories.SPEED, tmp_path, Console(file=out, width=200))
    text = out.getvalue()
    assert text.index("f32 ") < text.index("int8 ") < text.index("QAT 3 ")
    assert f"{by['int8']['loss'] - by['f32']['loss']:+.4f}" in text
    assert (tmp_path / "quantize_own.png").stat().st_size > 1000


def test_the_config_is_one_of_two_and_every_recipe_is_known():
    full, few = get_config(), get_config("tiny")
    assert {n for n, m in full.methods.items() if m.seeded} == {
        n for n in full.methods if n.split()[0].rstrip(",") in ("SmoothQuant", "GPTQ", "AWQ", "QAT") or "static" in n
    }
    assert set(few.methods) < set(full.methods) and few.seeds == (0,)
    for name, method in full.to_dict()["methods"].items():
        bits = weights.parse(method["recipe"])
        assert (name in ("f32", "bf16", "int8 cache")) == (not bits)
    with pytest.raises(ValueError, match=r"'small' of configs/quantize.py; have \['', 'tiny'\]"):
        get_config("small")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subjects": ("stories",)}, r"unknown subject 'stories', did you mean 'stories260K'"),
        ({"methods": {"int8": {"recipe": ()}}}, r"methods \['int8'\] lack 'f32'"),
        ({"methods": {"f32": {"recipe": [{"method": "nf5"}]}}}, "'nf5', did you mean 'nf4'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_work(change, message, tmp_path):
    config = get_config("tiny").to_dict() | {"data": str(tmp_path)} | change
    with pytest.raises(ValueError, match=message):
        quantize.work(config, tmp_path, Console(quiet=True))
