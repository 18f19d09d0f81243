"""Beam search against an exhaustive search and against its own definition."""

import itertools

import jax
import numpy as np
import pytest

from research.decoding import Sampling, generate
from research.decoding.beam import beam_search

PROMPTS = [[1, 2, 3], [4], [5, 6, 7]]


def best_texts(raw_logits, prompt, steps, ends, penalty):
    """Every text of at most `steps` tokens that ends where `ends(tokens)` or is full, with its score, best first."""
    found = {}
    for tokens in itertools.product(range(11), repeat=steps):
        cut = next((n for n in range(1, steps) if ends(tokens[:n])), steps)
        text = tokens[:cut]
        if text not in found:
            total = 0.0
            for i, token in enumerate(text):
                logits = raw_logits([*prompt, *text[:i]])
                total += float(logits[token] - jax.nn.logsumexp(logits))
            found[text] = total / len(text) ** penalty
    return sorted(found.items(), key=lambda item: -item[1])


@pytest.fixture
def logits(raw_logits):
    """`raw_logits`, each text asked once."""
    cached = {}

    def ask(ids):
        if tuple(ids) not in cached:
            cached[tuple(ids)] = raw_logits(ids)
        return cached[tuple(ids)]

    return ask


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_search_finds_the_best_text(table, logits, penalty):
    best = best_texts(logits, [1, 2, 3], 3, lambda tokens: 9 in tokens, penalty)
    out = beam_search(
        *table, [[1, 2, 3]], beams=121, returned=5, max_new_tokens=3, stop_tokens=[9], length_penalty=penalty,
        early_stopping="never",
    )  # fmt: skip
    assert [tuple(out.ids(i)) for i in range(5)] == [text for text, _ in best[:5]]
    np.testing.assert_allclose(out.scores, [score for _, score in best[:5]], atol=1e-5)


def test_a_wide_search_finds_the_best_text_with_a_stop_string(table, logits, letters):
    """The string spans two tokens or lies inside one: ST + OP, b + c, bc."""

    def ends(tokens):
        text = letters.decode(tokens)
        return 9 in tokens or "STOP" in text or "bc" in text

    best = best_texts(logits, [1, 2, 3], 3, ends, 0.0)
    out = beam_search(
        *table, [[1, 2, 3]], beams=121, returned=60, max_new_tokens=3, stop_tokens=[9], length_penalty=0.0,
        early_stopping="never", stop_strings=["STOP", "bc"], tokenizer=letters,
    )  # fmt: skip
    assert [tuple(out.ids(i)) for i in range(60)] == [text for text, _ in best[:60]]
    np.testing.assert_allclose(out.scores, [score for _, score in best[:60]], atol=1e-5)
    assert set(out.reasons) == {"length", "stop token", "stop string"}
    for i, reason in enumerate(out.reasons):
        text = letters.decode(out.ids(i))
        assert (reason == "stop string") == ("STOP" in text or "bc" in text)
        ended = {"length": text, "stop token": text[:-1], "stop string": text.split("bc")[0].split("STOP")[0]}
        assert out.texts[i] == ended[reason]


def test_texts_that_do_not_exist_are_not_made_up(table, letters):
    """Every token but the stop token completes the stop string: a text of one token is all there is."""
    out = beam_search(
        *table, [[1]], beams=14, returned=13, max_new_tokens=4, stop_tokens=[0], tokenizer=letters,
        stop_strings=[*"abc ST\né", "OP"],
    )  # fmt: skip
    assert sorted(out.tokens[:11, 0].tolist()) == list(range(11)) and (out.lengths[:11] == 1).all()
    assert (out.lengths[11:] == 0).all() and np.isneginf(out.scores[11:]).all()


def test_one_beam_is_greedy(table):
    plain = generate(*table, PROMPTS, max_new_tokens=9)
    out = beam_search(*table, PROMPTS, beams=1, max_new_tokens=9)
    assert out.tokens.tolist() == plain.tokens.tolist()
    np.testing.assert_allclose(out.logprobs, plain.logprobs, atol=1e-5)
    np.testing.assert_allclose(out.scores, plain.logprobs.sum(1) / 9, atol=1e-5)


def test_scores_are_the_penalised_sums(table):
    out = beam_search(
        *table, PROMPTS, beams=4, returned=3, max_new_tokens=[8, 3, 5], stop_tokens=[0, 9], length_penalty=0.7
    )
    assert len(out) == 9 and out.prompts[3] == PROMPTS[1]
    np.testing.assert_allclose(out.scores, out.logprobs.sum(1) / out.lengths**0.7, atol=1e-5)
    assert (np.diff(out.scores.reshape(3, 3), axis=1) <= 0).all()
    assert (out.lengths[3:6] <= 3).all()
    for i in range(9):
        assert (out.reasons[i] == "stop token") == (out.ids(i)[-1] in (0, 9))


def test_a_row_alone_equals_the_row_in_a_batch(table):
    together = beam_search(*table, PROMPTS, beams=3, max_new_tokens=8, stop_tokens=[9], early_stopping=True)
    for i, prompt in enumerate(PROMPTS):
        alone = beam_search(*table, [prompt], beams=3, max_new_tokens=8, stop_tokens=[9], early_stopping=True)
        assert alone.ids(0) == together.ids(i)


def test_constraints_hold_in_every_beam(table):
    sampling = Sampling(no_repeat_ngram=1, suppress=[10], forced_bos=5)
    out = beam_search(*table, [[1, 2]], beams=4, returned=4, max_new_tokens=6, sampling=sampling)
    for i in range(4):
        ids = [1, 2, *out.ids(i)]
        assert len(set(ids)) == len(ids) and 10 not in ids and ids[2] == 5


def test_texts_leave_the_stop_token_out(chain, letters):
    model, params = chain([1, 2, 10, 3])
    out = beam_search(model, params, [[1]], beams=2, max_new_tokens=4, stop_tokens=[10], tokenizer=letters)
    assert out.texts == ["ab"] and out.reasons == ["stop token"]


def test_bad_requests_say_what_is_wrong(table):
    cases = {
        "expected 1 <= returned <= beams": {"beams": 2, "returned": 3},
        "early_stopping must be True, False or 'never'": {"early_stopping": "always"},
        "beam search is deterministic": {"sampling": Sampling(temperature=1.0)},
        "max_new_tokens of at least 1": {"max_new_tokens": 0},
        "give the tokenizer": {"stop_strings": ["."]},
    }
    for message, kwargs in cases.items():
        with pytest.raises(ValueError, match=message):
            beam_search(*table, [[1]], **kwargs)
