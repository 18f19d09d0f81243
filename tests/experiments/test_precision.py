"""The experiment on precision on a tiny model and a few made-up texts."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from configs.precision import POLICIES, get_config
from experiments import precision
from research.core import tree
from research.data.build import DataConfig, build_rows, texts
from research.data.byte_tokenizer import ByteTokenizer
from research.data.sentencepiece_tokenizer import train_sentencepiece
from research.interop import save_pretrained
from research.models import build
from tests.models.conftest import tiny_config

STEPS = 14


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The tiny grid on a folder of documents."""
    folder = tmp_path_factory.mktemp("text")
    for i in range(40):
        (folder / f"{i}.txt").write_text(f"Document {i} says that seven times {i} is {7 * i}. " * 6)
    made = get_config("tiny").to_dict()
    made["data"] = {"kind": "text", "path": str(folder), "objective": "causal", "length": 24, "heldout": 0.2}
    return made | {"steps": STEPS, "probe_rows": 2, "probe_scales": (1.0, 2.0**30)}


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    rows = {split: build_rows(config["data"], ByteTokenizer(), split) for split in ("train", "heldout")}
    described = tiny_config("llama", vocab_size=ByteTokenizer().vocab_size, n_layers=1, max_length=32)

    def cell(**choice):
        return precision.run_cell(config, choice, 0, described, rows, tmp_path_factory.mktemp("run"))

    return cell


def test_a_cell_trains_counts_its_bytes_and_repeats_itself(run):
    first, again, half = run(policy="bf16"), run(policy="bf16"), run(policy="pure_bf16")
    assert {k: v for k, v in first.items() if k != "cpu_seconds"} == {
        k: v for k, v in again.items() if k != "cpu_seconds"
    }
    assert first["train"][-1] < first["train"][0] and np.isfinite(first["loss"]) and first["steps"] == STEPS
    described = tiny_config("llama", vocab_size=ByteTokenizer().vocab_size, n_layers=1, max_length=32)
    count = tree.count(build(described).abstract())
    assert (first["weights_bytes"], half["weights_bytes"]) == (4 * count, 2 * count)
    assert 2 * 4 * count <= first["optimizer_bytes"] <= 2 * 4 * count + 16
    assert 2 * 2 * count <= half["optimizer_bytes"] <= 2 * 2 * count + 16
    assert first["cpu_seconds"] > 0


def test_a_dynamic_scale_goes_on_where_a_fixed_one_stops(run):
    fixed = run(policy="f16", loss_scale={"initial": 2.0**30, "growth_interval": 0})
    assert fixed["loss"] is None and fixed["steps"] == 1 and "at step 1 " in fixed["stopped"]
    dynamic = run(policy="f16", loss_scale={"initial": 2.0**26, "growth_interval": 4})
    assert np.isfinite(dynamic["loss"]) and dynamic["stopped"] is None and dynamic["steps"] == STEPS
    assert 1 <= dynamic["skipped"] < STEPS and dynamic["scales"][:2] == [2.0**26, 2.0**25]


def test_a_trained_model_is_looked_at_and_reported(config, run, tmp_path):
    pieces = train_sentencepiece(texts(DataConfig.of(config["data"]), "train"), 300, kind="bpe")
    described = tiny_config("llama", vocab_size=pieces.vocab_size, n_layers=1, max_length=32)
    params = jax.jit(build(described).init)(jax.random.key(0))
    folder = save_pretrained(tmp_path / "model", described, params, tokenizer=pieces)
    found = precision.look(config, str(folder))
    # Embeddings of 0.02: the derivative of 1/√x at their mean square, -½ · 0.0004^-1.5, is no float16.
    site = "forward: decoder layer 0, attention_norm, mul"
    assert found["first"] == {"float16": site, "bfloat16": None} and found["above"][site] > 65504
    assert set(found["shares"]) == {"f16", "bf16"} and found["shares"]["f16"][str(2.0**30)][1] > 0
    assert found["shares"]["bf16"][str(2.0**30)][1] == 0
    runs = [
        {"policy": "f16", "seed": 0, **run(policy="f16", loss_scale={"initial": 2.0**30, "growth_interval": 2})},
        {"policy": "fixed", "seed": 0, **run(policy="f16", loss_scale={"initial": 2.0**30, "growth_interval": 0})},
        {"policy": "f32", "seed": 0, **run(policy="f32")},
    ]
    out = io.StringIO()
    precision.report([{"base": "small decoder", **found}], runs, tmp_path, Console(file=out, width=250))
    told = out.getvalue()
    assert "at step 1" in told and "2^30 to 2^30" in told and "nowhere" in told
    assert f"{max(found['above'].values()):,.0f} (forward: decoder layer 0, attention_norm," in told
    for name in ("scale", "ranges", "gradients"):
        assert (tmp_path / f"precision_{name}.png").stat().st_size > 1000


def test_the_configs():
    assert set(get_config().policies) == set(POLICIES) and get_config().seeds == (0, 1, 2)
    assert not get_config("tiny").bases
    with pytest.raises(ValueError, match=r"unknown argument 'huge' of configs/precision.py; have \['', 'tiny'\]"):
        get_config("huge")
