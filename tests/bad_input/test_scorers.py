"""Bad input of BERTScore, translation metrics, learned scorers and cards: one line instead of a number."""

import json

import jax
import jax.numpy as jnp
import pytest

from experiments.pairs import dialogues
from research.data.byte_tokenizer import ByteTokenizer
from research.evaluation import bertscore, bleu, chrf, ter
from research.evaluation.bertscore import read_baseline
from research.evaluation.card import Card, measure
from research.evaluation.text_scorer import TextScorer
from research.models import build, preset
from research.recipes.reward import pairwise_loss

SIZES = {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32, "max_length": 16}
ENCODER = build(preset("bert-base").replace(**SIZES, head="none"))
DECODER = build(preset("gpt2").replace(**SIZES))
BYTES = ByteTokenizer()


class Bare(ByteTokenizer):
    """Without a begin token."""

    bos_id = None


def score(candidates=("a",), references=("b",), model=ENCODER, tokenizer=BYTES, **options):
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), model.abstract())
    return bertscore(model, params, tokenizer, list(candidates), list(references), **options)


def file(folder, text, name="base.tsv"):
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: score(["a", "b"], ["a"]), "as many predictions as references"),
        (lambda _: score([], []), "at least one; got 0 and 0"),
        (lambda _: score(["a", "b"], [["a"], []]), "candidate 1 has no reference"),
        (lambda _: score(model=DECODER), "what an encoder sees; this model is a decoder"),
        (lambda _: score(layer=3), r"layer 3 does not exist: the model has 0 \(embeddings\) to 2"),
        (lambda _: score(layer=-1), "layer -1 does not exist"),
        (lambda _: score(tokenizer=Bare()), "frames texts in the tokenizer's begin and end token; it has None"),
        (lambda _: score(length=2), "and 2 tokens to put them in"),
        (lambda f: read_baseline(file(f, "P,R,F\n1,2,3\n"), 1), r"base\.tsv:1: expected the header LAYER,P,R,F"),
        (lambda f: read_baseline(file(f, "LAYER,P,R,F\n0,1,x,1\n"), 0), r"base\.tsv:2: expected a layer and three"),
        (lambda f: read_baseline(file(f, "LAYER,P,R,F\n0,.1,.1,.1\n"), 5), r"no baseline of layer 5; it has \[0\]"),
        (lambda f: read_baseline(file(f, ""), 0), r"base\.tsv:1: expected the header"),
        (lambda _: bleu(["a"], []), "as many predictions as references"),
        (lambda _: chrf("a", "b"), "got a single text"),
        (lambda _: ter(["a"], [[]]), "prediction 0 has no reference"),
        (lambda f: TextScorer.load(f), r"holds no text scorer: scorer\.json is missing"),
        (lambda f: dialogues(file(f, json.dumps({"chosen": "x"}))), r"base\.tsv:1: expected chosen and rejected"),
        (lambda _: pairwise_loss(DECODER), "ranking needs a head 'scalar'; the model has 'lm'"),
        (lambda _: measure("x", lambda tasks: [], []), "a card needs tasks"),
        (lambda f: Card.read(file(f, "{}", "card.json")), r"card\.json holds no card"),
    ],
)
def test_refusals(tmp_path, call, message):
    with pytest.raises(ValueError, match=message) as refused:
        call(tmp_path)
    assert "\n" not in str(refused.value)
