"""Scores of texts and continuations against plain full forward passes, one token at a time, on tiny models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data.byte_tokenizer import ByteTokenizer
from research.data.sentencepiece_tokenizer import SentencePieceTokenizer
from research.evaluation.likelihood import score, score_choices, score_pairs
from research.evaluation.scored_rows import Row, score_rows, windows
from research.models import build, preset
from research.weights import attach
from research.weights.prompts import virtual_ids

BYTES = ByteTokenizer()
SIZES = {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "d_ff": 32, "head_dim": 8}
DROPOUT = dict.fromkeys(("embed_dropout", "attention_dropout", "residual_dropout"), 0.0)
TEXTS = [
    "To be, or not to be",
    "x",
    "",
    "Ünïcödé — bytes",
    "a much longer text than the others, which needs windows" * 2,
]
PAIRS = [("2+2=", "4"), ("2+2=", "fish"), ("", "alone"), ("A longer context. ", "Yes"), ("q", "?!")]


def noisy(model):
    """Random weights that need no compiled start; large, so that distributions are not flat."""
    generator = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(generator.normal(0, 0.4, leaf.shape), leaf.dtype)  # noqa: E731
    return jax.tree.map(draw, model.abstract())


@pytest.fixture(scope="module")
def decoder():
    model = build(preset("llama3.2-1b").replace(**SIZES, max_length=24))
    return model, noisy(model)


@pytest.fixture(scope="module")
def seq2seq():
    model = build(preset("t5-small").replace(**SIZES, **DROPOUT, n_encoder_layers=2, max_length=24))
    return model, noisy(model)


@pytest.fixture(scope="module")
def forward(decoder, seq2seq):
    """(model, params, batch) -> ln p of everything at the last position, [V]; one shape, the rest is cut off."""
    run = jax.jit(
        lambda model, params, batch: model.logits(params, model.apply(params, batch).hidden), static_argnums=0
    )

    def last(model, params, tokens, source=None):
        # Padding behind a causal model changes nothing before it; it only keeps one program.
        batch = {"tokens": np.array([[*tokens, *[0] * (32 - len(tokens))]])[:, : model.config.max_length]}
        if source is not None:
            real = np.array([[1] * len(source) + [0] * (32 - len(source))])
            batch |= {"inputs": np.array([[*source, *[0] * (32 - len(source))]]), "input_segment_ids": real}
            batch["segment_ids"] = np.ones_like(batch["tokens"])
        logits = np.asarray(run(model, params, batch)[0, len(tokens) - 1], np.float64)
        return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()

    return last


def plain(forward, model, params, ids, length, stride):
    """Σ −ln p of ids[1:], each seen from its own window, and whether all were the likeliest."""
    nats, greedy = 0.0, True
    for i in range(1, len(ids)):
        # The first window holds `length` positions; each later one begins `stride` after the one before.
        k = 0 if i <= length else -(-(i - length) // stride)
        p = forward(model, params, ids[k * stride : i])
        nats, greedy = nats - p[ids[i]], greedy and p[ids[i]] == p.max()
    return nats, greedy


@pytest.mark.parametrize(("length", "stride"), [(None, None), (24, 24), (24, 1), (10, 3), (7, 7)])
def test_texts_are_a_loop_over_tokens(decoder, forward, length, stride):
    found = score(*decoder, BYTES, TEXTS, length=length, stride=stride, batch_size=4)
    for i, text in enumerate(TEXTS):
        ids = [BYTES.eos_id, *BYTES.encode(text, eos=True)]
        nats, greedy = plain(forward, *decoder, ids, length or 24, stride or 12)
        assert found.nats[i] == pytest.approx(nats, abs=2e-4)
        assert found.greedy[i] == greedy
    assert found.tokens.tolist() == [len(text.encode()) + 1 for text in TEXTS]
    assert found.bytes.tolist() == [len(text.encode()) for text in TEXTS]
    assert found.perplexity == pytest.approx(np.exp(found.nats.sum() / found.tokens.sum()))
    assert found.bits_per_byte == pytest.approx(found.nats.sum() / np.log(2) / found.bytes.sum())


@pytest.mark.parametrize("n", [1, 2, 9, 10, 11, 35])
@pytest.mark.parametrize(("length", "stride"), [(10, 5), (10, 1), (10, 10), (1, 1), (7, 4)])
def test_windows_count_every_token_once(n, length, stride):
    ids = list(range(100, 100 + n))
    rows = windows(ids, length, stride)
    assert [t for row in rows for t in row.targets[row.skipped :]] == ids[1:]
    for row in rows:
        assert 0 < len(row.tokens) == len(row.targets) <= length
        assert [t + 1 for t in row.tokens] == row.targets
    for row in rows[1:]:
        assert row.skipped == length - stride  # what every counted token sees at least


def test_neighbours_in_a_batch_and_its_size_change_nothing(decoder):
    together = score(*decoder, BYTES, TEXTS)
    for i, text in enumerate(TEXTS):
        alone = score(*decoder, BYTES, [text], batch_size=4)
        np.testing.assert_allclose(alone.nats[0], together.nats[i], atol=1e-4)
    without = score(*decoder, BYTES, TEXTS, end=False)
    assert (together.tokens - without.tokens).tolist() == [1] * len(TEXTS)


def test_pairs_are_a_loop_over_the_continuation(decoder, forward):
    found = score_pairs(*decoder, BYTES, PAIRS)
    for i, (context, continuation) in enumerate(PAIRS):
        # Blanks at the end of a context belong to the continuation.
        text = context.rstrip()
        head = BYTES.encode(text) or [BYTES.eos_id]
        rest = BYTES.encode(context[len(text) :] + continuation)
        nats = [-forward(*decoder, [*head, *rest[:k]])[rest[k]] for k in range(len(rest))]
        assert found.nats[i] == pytest.approx(sum(nats), abs=2e-4)
        assert found.tokens[i] == len(rest)
        assert found.bytes[i] == len(continuation)


def test_an_encoder_reads_the_context(seq2seq, forward):
    model, params = seq2seq
    found = score_pairs(model, params, BYTES, PAIRS)
    for i, (context, continuation) in enumerate(PAIRS):
        source, targets = BYTES.encode(context, eos=True), BYTES.encode(continuation)
        begin = [model.config.decoder_start_id]
        nats = [-forward(model, params, [*begin, *targets[:k]], source)[targets[k]] for k in range(len(targets))]
        assert found.nats[i] == pytest.approx(sum(nats), abs=2e-4)


def test_what_the_likeliest_continuation_is(decoder, forward):
    ids = BYTES.encode("ab")
    for _ in range(5):
        ids.append(int(forward(*decoder, ids).argmax()))
    rows = [Row(ids[:-1], ids[1:], 1), Row(ids[:-1], [*ids[1:-1], (ids[-1] + 1) % 300], 1)]
    _, greedy = score_rows(*decoder, rows, length=24)
    assert greedy.tolist() == [True, False]


@pytest.mark.parametrize("by", ["sum", "token", "byte", "unconditional"])
def test_choices(decoder, by):
    questions = [("2+2=", ["4", "four", "vier — 4"]), ("1+1=", ["4", "22"])]
    found = score_choices(*decoder, BYTES, questions, by=by, neutral="=")
    assert [len(values) for values in found] == [3, 2]
    for (context, choices), values in zip(questions, found, strict=True):
        for choice, value in zip(choices, values, strict=True):
            one = score_pairs(*decoder, BYTES, [(context, choice), ("=", choice)])
            per = {"sum": 1, "token": one.tokens[0], "byte": len(choice.encode()), "unconditional": 1}[by]
            expected = -one.nats[0] / per + (one.nats[1] if by == "unconditional" else 0)
            assert value == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def pieces(data_dir):
    return SentencePieceTokenizer.load(data_dir / "tokenizers" / "sp_test_model.model")


def test_the_boundary_is_that_of_the_whole_text(pieces):
    # The pieces scored are the last ones of context + continuation, wherever the blank between them is written.
    model = build(preset("llama3.2-1b").replace(**(SIZES | {"vocab_size": pieces.vocab_size}), max_length=24))
    params = noisy(model)
    found = score_pairs(model, params, pieces, [("I saw a", " girl"), ("I saw a ", "girl")])
    assert found.tokens[0] == found.tokens[1] > 0
    assert found.nats[0] == pytest.approx(found.nats[1], abs=1e-5)
    apart = score_pairs(model, params, pieces, [("I saw a", " girl")], boundary="separate")
    assert apart.tokens[0] >= found.tokens[0]
    with pytest.raises(ValueError, match=r"pair 1: the prompt's tokens are no prefix.*boundary='separate'"):
        score_pairs(model, params, pieces, [("I saw", " a"), ("I sa", "w a girl")])


def test_long_contexts_are_refused_or_lose_their_beginning(decoder, forward):
    pair = ("The beginning of this is lost, the end is not", "!!")
    with pytest.raises(ValueError, match=r"pair 0: context and continuation have 46 tokens, the model takes 24"):
        score_pairs(*decoder, BYTES, [pair])
    found = score_pairs(*decoder, BYTES, [pair], long="cut")
    ids = BYTES.encode(pair[0] + pair[1])
    # The last 24 tokens that are read begin at -25: the very last one is only predicted.
    nats = [-forward(*decoder, ids[-25:k])[ids[k]] for k in (-2, -1)]
    assert found.nats[0] == pytest.approx(sum(nats), abs=2e-4)
    with pytest.raises(ValueError, match=r"pair 0: the continuation has 30 tokens, the model takes 24"):
        score_pairs(*decoder, BYTES, [("a", "!" * 30)], long="cut")


def test_a_soft_prompt_stands_in_front_of_every_window(decoder):
    model, params = decoder
    prompt = {"method": "prompt", "length": 3, "init": "random"}
    tuned = attach(params, prompt, jax.random.key(5), config=model.config)
    plain_read = score(model, tuned, BYTES, TEXTS)
    np.testing.assert_allclose(plain_read.nats, score(model, params, BYTES, TEXTS).nats, atol=1e-4)
    ids = virtual_ids(tuned)
    read = score(model, tuned, BYTES, TEXTS[:1], virtual=ids, end=False)
    tokens = [*ids, BYTES.eos_id, *BYTES.encode(TEXTS[0])]
    logits = np.asarray(model.logits(tuned, model.apply(tuned, {"tokens": jnp.array([tokens])}).hidden)[0], np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -sum(logprobs[i - 1, tokens[i]] for i in range(len(ids) + 1, len(tokens)))
    assert read.nats[0] == pytest.approx(expected, abs=2e-4)
    assert abs(read.nats[0] - plain_read.nats[0]) > 0.1
