"""Bad input of preference data and of the losses on it: one line that names the example and says what was given."""

import numpy as np
import pytest

from research.data.byte_tokenizer import ByteTokenizer
from research.data.preference import Preference, as_preference, pairs_of_ranking
from research.data.preference_rows import (
    PreferenceRows,
    WithReference,
    encode_preference,
    encode_preference_pairs,
    encode_preferences,
)
from research.models import build, preset
from research.recipes.dpo import preference_loss, with_copy, without_adapter
from research.recipes.reward import pairwise_loss

BYTES = ByteTokenizer()
SIZES = {"vocab_size": 300, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32, "max_length": 32}
GPT2, BERT = build(preset("gpt2").replace(**SIZES)), build(preset("bert-base").replace(**SIZES))
BART = build(preset("bart-base").replace(**SIZES, head="scalar"))
PAIR = {"prompt": "Why? ", "chosen": "Because.", "rejected": "No."}
EQUAL, EMPTY = PAIR | {"rejected": "Because."}, PAIR | {"rejected": " "}
USER, SAYS = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def encoded(*examples, length=20, **options):
    return encode_preferences(examples, BYTES, length=length, **options)


def pairs(*examples, **options):
    return encode_preference_pairs(examples, BYTES, inputs_length=8, targets_length=8, **options)


CASES = {
    "equal answers": (lambda: encoded(PAIR, EQUAL), "example 1: chosen and rejected are equal: 'Because.'"),
    "empty answer": (lambda: pairs(EMPTY), "example 0: the rejected answer is empty"),
    "answer that is no text": (
        lambda: as_preference(PAIR | {"chosen": 3}),
        "the chosen answer must be a text, got int",
    ),
    "other columns": (lambda: encoded({"text": "a"}), r"example 0: unknown columns \['text'\]; expected chosen and"),
    "dialogues of two questions": (
        lambda: as_preference({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: x\n\nAssistant: c"}),
        "must be dialogues that are equal up to the last",
    ),
    "chats of two questions": (
        lambda: as_preference({"chosen": [USER, SAYS], "rejected": [SAYS, USER]}),
        "must be chats that are equal up to their last message",
    ),
    "answer of the user": (lambda: as_preference(PAIR | {"chosen": [USER]}), r"of the assistant; roles are \['user'\]"),
    "preference that is none": (
        lambda: as_preference({"instruction": "a", "output_1": "b", "output_2": "c", "preference": 3}),
        "preference must be 1, 2, a number between them, or 0 for a tie; given 3",
    ),
    "preference in per cent": (
        lambda: as_preference(PAIR | {"preferred": 70}),
        "preferred must be in 0 .. 1, given 70",
    ),
    "ranks of other answers": (lambda: pairs_of_ranking("q", ["a", "b"], [1]), "2 answers but 1 ranks"),
    "ranking of one answer": (lambda: pairs_of_ranking("q", ["a", "a"], [1, 2]), "at least 2 answers that differ"),
    "nothing given": (lambda: encoded(), "no examples were given"),
    "nothing left": (lambda: encoded(EQUAL, EMPTY, unusable="drop"), "no pair is left of 2 examples"),
    "long pairs": (
        lambda: encoded(PAIR, PAIR, length=13),
        r"2 of 2 pairs exceed 13 tokens \(the longest has 14\); choose long='truncate' or 'drop'",
    ),
    "all too long": (lambda: encoded(PAIR, length=13, long="drop"), "all 1 pairs exceed 13 tokens: none is left"),
    "answer without room for a prompt": (
        lambda: encoded(PAIR, length=9, long="truncate"),
        r"1 of 1 pairs have an answer of 9 tokens or more \(the longest has 9\), which leaves no room for a prompt",
    ),
    "answer longer than the decoder's row": (
        lambda: pairs(PAIR, long="truncate"),
        r"1 exceed 8 target tokens \(the longest have 6 and 9\)",
    ),
    "unknown cut": (lambda: encoded(PAIR, long="trim"), "unknown long='trim'; have"),
    "unknown answer to the unusable": (lambda: encoded(PAIR, unusable="keep"), "unknown unusable='keep'; have"),
    "chat without a template": (
        lambda: encode_preference(Preference([USER], "a", "b"), BYTES),
        "this tokenizer has no chat template",
    ),
    "reference of other rows": (
        lambda: WithReference(PreferenceRows(encoded(PAIR), 20), np.zeros((2, 2))),
        r"1 rows need log-probabilities \[1, 2\], given \(2, 2\)",
    ),
    "unknown loss": (lambda: preference_loss(GPT2, "dpoo"), "unknown loss 'dpoo', did you mean 'dpo'"),
    "unknown reference": (lambda: preference_loss(GPT2, reference="adaptor"), "did you mean 'adapter'"),
    "option of another loss": (lambda: preference_loss(GPT2, tau=0.1), "'dpo' has no option 'tau'"),
    "option that the recipe sets": (lambda: preference_loss(GPT2, mask=None), "'dpo' has no option 'mask'"),
    "beta of 0": (lambda: preference_loss(GPT2, beta=0), "beta must be above 0, given 0"),
    "SimPO beside a reference": (
        lambda: preference_loss(GPT2, "simpo", reference="copy"),
        "'simpo' has no reference; given reference='copy'",
    ),
    "encoder that is to answer": (
        lambda: preference_loss(BERT),
        "decoder with head 'lm'; this model is of kind 'encoder'",
    ),
    "policy without an adapter": (lambda: without_adapter({"w": np.ones(2)}), "no adapter that could be taken off"),
    "reference of another architecture": (
        lambda: with_copy(GPT2.abstract(), BERT.abstract()),
        "the reference does not fit: missing",
    ),
    "encoder-decoder read at its inputs": (
        lambda: pairwise_loss(BART),
        "set pooling='last'; the model has 'eos'",
    ),
    "negative centring": (
        lambda: pairwise_loss(build(GPT2.config.replace(head="scalar")), center=-1),
        "center must be 0 or above, given -1",
    ),
}


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "-"))
def test_refusals(name):
    call, message = CASES[name]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
