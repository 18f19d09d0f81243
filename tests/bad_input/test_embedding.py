"""Bad input of embedders and of their training: one line that says what was given, and what there is."""

import json
from dataclasses import replace

import jax
import pytest

from research.data.byte_tokenizer import ByteTokenizer
from research.decoding.embedder import Embedder, load_embedder
from research.models import build, preset
from research.recipes.contrastive import contrastive_loss, pair_batch

SMALL = {"d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 16, "max_length": 16, "vocab_size": 259}
MODEL = build(preset("bert-base").replace(head="none", **SMALL))
BOTH = build(preset("bart-base").replace(n_encoder_layers=1, **SMALL))
MAKE = Embedder(MODEL, {}, ByteTokenizer(), 16)

CASES = {
    "length above the model's": (lambda: replace(MAKE, length=17), "at most the model's 16; given 17"),
    "no room for a text": (lambda: replace(MAKE, length=1), "above the 1 tokens around a text .*given 1"),
    "two stacks": (lambda: replace(MAKE, model=BOTH), "this model is an encoder-decoder"),
    "two stacks to train": (lambda: contrastive_loss(BOTH), "this model is an encoder-decoder"),
    "pooling": (lambda: contrastive_loss(MODEL, pooling="men"), "unknown pooling 'men', did you mean 'mean'"),
    "temperature": (lambda: contrastive_loss(MODEL, temperature=0), "temperature must be above 0, given 0"),
    "a query too many": (lambda: pair_batch([[1], [2]], [[[1]]], (4, 4)), "2 queries but 1 lists of passages"),
    "no pairs": (lambda: pair_batch([], [], (4, 4)), "0 queries but 0"),
    "no passage": (lambda: pair_batch([[1], [2]], [[[1]], []], (4, 4)), "pair 1 needs a query and a passage"),
    "empty query": (lambda: pair_batch([[]], [[[1]]], (4, 4)), "pair 0 needs a query and a passage"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_line_says_what_is_wrong(name):
    call, told = CASES[name]
    with pytest.raises(ValueError, match=told) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("embedder")
    replace(MAKE, params=jax.jit(MODEL.init)(jax.random.key(0))).save(path)
    return path


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        (
            "modules.json",
            [{"path": "", "type": "a.Transformer"}, {"path": "", "type": "a.Dense"}],
            r"has the parts \['T",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "pools in one of the ways"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "asks for"),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False}, "include_prompt"),
    ],
)
def test_folders_of_other_embedders(folder, file, content, told):
    whole = (folder / file).read_text()
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=told):
        load_embedder(folder)
    (folder / file).write_text(whole)
    assert load_embedder(folder).pooling == "mean"
