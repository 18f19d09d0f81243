"""Greedy and beam search give the texts of `transformers.generate` on random models of every family."""

import itertools
import string
import warnings

import numpy as np
import pytest
import tokenizers

from research.decoding import Sampling, generate
from research.decoding.beam import beam_search
from tests.parity.zoo import PAD, both

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.oracle
EOS = 2
CAUSAL = ["gpt2-padded", "llama-padded", "llama-single", "bloom-padded", "mistral-padded", "qwen2-single"]
CAUSAL += ["qwen3-padded", "gemma2-padded", "gemma3-single"]
TWO_SIDED = ["t5-padded", "t5-single", "bart-padded", "bart-single"]
PROMPTS = [[5, 9, 12, 30, 7, 66], [8, 3], [40, 41, 42]]


def theirs(model, tokenizer=None, **kwargs):
    """New tokens of every returned row, up to and with the end token, and the scores of beam search."""
    # Their settings are completed from the model's own, and BART's force an end token.
    model.generation_config.forced_eos_token_id = None
    longest = max(map(len, PROMPTS))
    two_sided = model.config.is_encoder_decoder
    side = [p + [PAD] * (longest - len(p)) if two_sided else [PAD] * (longest - len(p)) + p for p in PROMPTS]
    mask = torch.tensor(np.asarray(side) != PAD).long()
    settings = transformers.GenerationConfig(
        eos_token_id=EOS,
        pad_token_id=PAD,
        decoder_start_token_id=model.config.decoder_start_token_id if two_sided else None,
        return_dict_in_generate=True,
        output_scores=True,
        use_cache=not model.config.model_type.startswith("t5"),  # their cache counts T5's encoder layers
        **kwargs,
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        out = model.generate(torch.tensor(side), attention_mask=mask, generation_config=settings, tokenizer=tokenizer)
    rows = []
    for row in out.sequences[:, 1 if two_sided else longest :].tolist():
        rows.append(row[: row.index(EOS) + 1] if EOS in row else row)
    return rows, getattr(out, "sequences_scores", None)


@pytest.mark.parametrize("name", CAUSAL + TWO_SIDED)
def test_greedy(name):
    their_model, model, params = both(name)
    expected, _ = theirs(their_model, max_new_tokens=12, do_sample=False)
    out = generate(model, params, PROMPTS, max_new_tokens=12, stop_tokens=[EOS])
    assert [out.ids(i) for i in range(3)] == expected
    assert out.near_ties.sum() == 0


@pytest.mark.parametrize("name", ["gpt2-padded", "t5-padded"])
def test_greedy_with_constraints(name):
    their_model, model, params = both(name)
    kwargs = {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_new_tokens": 6, "suppress_tokens": [9]}
    if name.startswith("t5"):
        kwargs |= {"encoder_repetition_penalty": 1.5, "forced_bos_token_id": 11, "forced_eos_token_id": EOS}
    expected, _ = theirs(their_model, max_new_tokens=12, do_sample=False, **kwargs)
    sampling = Sampling(
        repetition_penalty=1.4,
        no_repeat_ngram=2,
        suppress=[9],
        encoder_repetition_penalty=kwargs.get("encoder_repetition_penalty"),
        forced_bos=kwargs.get("forced_bos_token_id"),
        forced_eos=kwargs.get("forced_eos_token_id"),
    )
    out = generate(model, params, PROMPTS, max_new_tokens=12, min_new_tokens=6, stop_tokens=[EOS], sampling=sampling)
    assert [out.ids(i) for i in range(3)] == expected


SEARCHES = {
    "default": {"length_penalty": 1.0, "early_stopping": False},
    "early": {"length_penalty": 2.0, "early_stopping": True},
    "short": {"length_penalty": -0.5, "early_stopping": "never"},
    "never": {"length_penalty": 1.5, "early_stopping": "never", "no_repeat_ngram_size": 2, "min_new_tokens": 4},
}
# How a search ends does not depend on the model: two of them take every search, two others one.
SEARCHED = [*itertools.product(["gpt2-padded", "t5-padded"], SEARCHES)]
SEARCHED += [("llama-padded", "default"), ("bart-padded", "never")]


@pytest.mark.parametrize(("name", "search"), SEARCHED)
def test_beam_search(name, search):
    their_model, model, params = both(name)
    search = SEARCHES[search]
    expected, scores = theirs(
        their_model, max_new_tokens=10, num_beams=4, num_return_sequences=3, do_sample=False, **search
    )
    out = beam_search(
        model,
        params,
        PROMPTS,
        beams=4,
        returned=3,
        max_new_tokens=10,
        min_new_tokens=search.get("min_new_tokens", 0),
        stop_tokens=[EOS],
        length_penalty=search["length_penalty"],
        early_stopping=search["early_stopping"],
        sampling=Sampling(no_repeat_ngram=search.get("no_repeat_ngram_size")),
    )
    assert [out.ids(i) for i in range(9)] == expected
    np.testing.assert_allclose(out.scores, scores.numpy(), atol=1e-4)


class Letters:
    """67 tokens: the letters, and a vowel with a consonant."""

    texts = [*string.ascii_lowercase, *map("".join, itertools.product("aeiou", "bcdfghjkl"))][:67]

    def decode(self, ids):
        return "".join(self.texts[i] for i in ids)


@pytest.mark.parametrize("name", ["gpt2-padded", "t5-padded"])
def test_beam_search_with_stop_strings(name):
    """The strings lie inside tokens or span two; none begins with an end of a prompt, which theirs would count."""
    stops = ["j", "la", "ai", "rs"]
    pieces = tokenizers.Tokenizer(tokenizers.models.BPE({text: i for i, text in enumerate(Letters.texts)}, []))
    pieces.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=pieces)
    their_model, model, params = both(name)
    search = {"max_new_tokens": 12, "length_penalty": 0.5, "early_stopping": False}
    search |= {"stop_strings": stops}
    beams = {"num_beams": 4, "num_return_sequences": 3, "do_sample": False}
    expected, scores = theirs(their_model, tokenizer, **beams, **search)
    out = beam_search(model, params, PROMPTS, beams=4, returned=3, stop_tokens=[EOS], tokenizer=Letters(), **search)
    assert "stop string" in out.reasons
    # Where a text ended early, theirs is padded; a text of ours may hold the padding token itself.
    lengths = [len(out.ids(i)) for i in range(9)]
    assert [out.ids(i) for i in range(9)] == [row[:n] for row, n in zip(expected, lengths, strict=True)]
    assert all(set(row[n:]) <= {PAD} for row, n in zip(expected, lengths, strict=True))
    np.testing.assert_allclose(out.scores, scores.numpy(), atol=1e-4)
