"""A real pretrained model: golden logits and mean negative log-likelihoods of stories260K, from both file versions.

The goldens were made by an independent numpy forward that reproduces the text published with the model.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.interop.llama2c import load_llama2c
from research.models import build
from research.ops.cross_entropy import cross_entropy


@pytest.fixture(scope="module")
def golden(data_dir: Path) -> dict:
    return json.loads((data_dir / "golden" / "stories260K_golden.json").read_text())


@pytest.fixture(scope="module", params=["checkpoint_legacy.bin", "checkpoint_v1.bin"])
def story_model(request, data_dir: Path):
    config, params = load_llama2c(data_dir / "stories260K" / request.param)
    return build(config), params


@pytest.fixture(scope="module")
def tokenizer(data_dir: Path):
    from research.data.llama2c_tokenizer import Llama2cTokenizer

    return Llama2cTokenizer.load(data_dir / "stories260K" / "tokenizer.bin")


def logits_of(model, params, ids):
    batch = {"tokens": jnp.array([ids], jnp.int32)}
    return np.asarray(jax.jit(lambda p: model.logits(p, model.apply(p, batch).hidden))(params)[0])


def mean_nll(model, params, ids):
    batch = {"tokens": jnp.array([ids[:-1]], jnp.int32)}
    targets = jnp.array([ids[1:]], jnp.int32)

    @jax.jit
    def run(params):
        features, weight, bias, cap = model.projection(params, model.apply(params, batch).hidden)
        return cross_entropy(features, weight, targets, jnp.ones(targets.shape), bias=bias, cap=cap)[0]

    return float(run(params)) / targets.size


def test_logits_after_the_first_token(story_model, golden: dict) -> None:
    logits = logits_of(*story_model, [1])[0]
    np.testing.assert_allclose(logits[:16], golden["logits_after_bos_first16"], atol=1e-3)
    ids, values = zip(*golden["logits_after_bos_top10"], strict=True)
    assert np.argsort(-logits)[:10].tolist() == list(ids)
    np.testing.assert_allclose(logits[list(ids)], values, atol=1e-3)
    np.testing.assert_allclose(np.log(np.sum(np.exp(logits))), 17.26726, atol=1e-3)


def test_logits_after_a_prompt(story_model, golden: dict) -> None:
    logits = logits_of(*story_model, golden["encode"]["Once upon a time"])[-1]
    ids, values = zip(*golden["logits_last_pos_Once_upon_a_time_top10"], strict=True)
    np.testing.assert_allclose(logits[list(ids)], values, atol=1e-3)


def test_mean_nll_of_its_own_text(story_model, golden: dict) -> None:
    nll, tokens = golden["mean_nll"]["published greedy text"]
    ids = golden["greedy_ids_from_bos"][: int(tokens) + 1]
    assert abs(mean_nll(*story_model, ids) - nll) < 1e-3


def test_mean_nll_of_other_texts(story_model, golden: dict, tokenizer, data_dir: Path) -> None:
    nll, tokens, text = golden["mean_nll"]["simple story"]
    story = tokenizer.encode(text, bos=True)
    assert len(story) == tokens + 1
    assert abs(mean_nll(*story_model, story) - nll) < 1e-3

    nll, tokens = golden["nll_tinyshakespeare_first600"]
    play = next((data_dir / "tinyshakespeare").glob("*.txt")).read_text()[:600]
    ids = tokenizer.encode(play, bos=True)
    assert len(ids) == tokens + 1
    assert abs(mean_nll(*story_model, ids) - nll) < 1e-3
