"""A task's prompts put to models: against the plain scores and generation they are made of, whatever the portions."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.apps.prompting import Item, Task
from research.data.byte_tokenizer import ByteTokenizer
from research.data.sentencepiece_tokenizer import SentencePieceTokenizer
from research.decoding import Sampling, generate
from research.evaluation import ask, likelihood
from research.evaluation.ask import Asked, choose, portions, write, write_by
from research.evaluation.judge.ask import NoAnswer
from research.evaluation.likelihood import score_pairs
from research.models import build, preset
from research.weights import attach
from research.weights.prompts import virtual_ids

BYTES = ByteTokenizer()
SIZES = {
    "vocab_size": BYTES.vocab_size,
    "d_model": 16,
    "n_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "d_ff": 32,
    "head_dim": 8,
}
ITEMS = [
    Item("a", "Is 2 even?\nAnswer:", (" yes", " no"), (0,)),
    Item("b", "Q", (" A", " B", " C"), (2,)),
    Item("c", "Is 3 even? It is a longer question.\nAnswer:", (" yes", " no"), (1,)),
    Item("d", "Q", (" A", " B", " C"), (1,)),  # the same text as b
]
CHOICES = Task("choices", ITEMS, ("acc",))
FREE = Task("free", [Item(i.id, i.question, answers=("x",)) for i in ITEMS], ("exact_match",), max_new_tokens=6)


def noisy(model):
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.normal(0, 0.4, leaf.shape), leaf.dtype), model.abstract())


@pytest.fixture(scope="module")
def decoder():
    model = build(preset("llama3.2-1b").replace(**SIZES, max_length=64))
    return model, noisy(model)


@pytest.fixture(scope="module")
def seq2seq():
    model = build(preset("t5-small").replace(**SIZES, n_encoder_layers=1, max_length=64))
    return model, noisy(model)


def asked(task):
    return [Asked(item, item.question) for item in task.items]


@pytest.mark.parametrize("by", ["sum", "token", "byte", "unconditional"])
@pytest.mark.parametrize("family", ["decoder", "seq2seq"])
def test_the_likeliest_choice_is_chosen(family, by, request):
    model, params = request.getfixturevalue(family)
    task = replace(CHOICES, by=by, neutral="Answer:")
    found = choose(model, params, BYTES, task, asked(task), batch_size=8)
    assert [o.item for o in found] == ["a", "b", "c", "d"]
    for item, outcome in zip(ITEMS, found, strict=True):
        pairs = [(front, choice) for choice in item.choices for front in (item.question, "Answer:")]
        one = score_pairs(model, params, BYTES, pairs, batch_size=8)
        nats, tokens, size = one.nats.reshape(-1, 2), one.tokens[::2], one.bytes[::2]
        wanted = {"sum": 1, "token": tokens, "byte": size, "unconditional": 1}[by]
        scores = -nats[:, 0] / wanted + (nats[:, 1] if by == "unconditional" else 0)
        np.testing.assert_allclose(outcome.scores, scores, atol=1e-4)
        assert outcome.prediction == int(np.argmax(scores)) and outcome.text == ""


def test_equal_texts_and_beginnings_are_read_once(decoder, monkeypatch):
    read, original = [], likelihood.score_rows
    monkeypatch.setattr(
        likelihood, "score_rows", lambda m, p, rows, **k: read.extend(rows) or original(m, p, rows, **k)
    )
    found = choose(*decoder, BYTES, CHOICES, asked(CHOICES), batch_size=8)
    assert len(read) == 7  # not 10: b and d are the same question
    assert found[1].scores == found[3].scores


@pytest.mark.parametrize("size", [1, 3, 10])
def test_portions_change_nothing(decoder, size):
    parts = list(portions(asked(CHOICES), size))
    assert sorted(one.item.id for part in parts for one in part) == ["a", "b", "c", "d"]
    assert parts[0][0].item.id == "c" and all(len(part) <= size for part in parts)
    found = [o for part in parts for o in choose(*decoder, BYTES, CHOICES, part, batch_size=8)]
    whole = {o.item: o for o in choose(*decoder, BYTES, CHOICES, asked(CHOICES), batch_size=8)}
    for outcome in found:
        assert outcome.prediction == whole[outcome.item].prediction
        np.testing.assert_allclose(outcome.scores, whole[outcome.item].scores, atol=1e-4)


def test_a_choice_that_begins_inside_a_token(data_dir):
    pieces = SentencePieceTokenizer.load(data_dir / "tokenizers" / "sp_test_model.model")
    model = build(preset("llama3.2-1b").replace(**(SIZES | {"vocab_size": pieces.vocab_size}), max_length=64))
    params = noisy(model)
    items = [Item("inside", "I sa", ("w a girl", "id so"), (0,)), Item("apart", "I saw a", (" girl", " boy"), (0,))]
    task = Task("words", items, ("acc",))
    found = choose(model, params, pieces, task, asked(task), batch_size=4)
    for item, outcome, boundary in zip(items, found, ("separate", "joint"), strict=True):
        pairs = [(item.question, choice) for choice in item.choices]
        wanted = score_pairs(model, params, pieces, pairs, boundary=boundary, batch_size=4)
        np.testing.assert_allclose(outcome.scores, -wanted.nats, atol=1e-4)


@pytest.mark.parametrize("family", ["decoder", "seq2seq"])
def test_answers_are_what_generate_writes(family, request):
    model, params = request.getfixturevalue(family)
    found = write(model, params, BYTES, FREE, asked(FREE), batch_size=4)
    eos = family == "seq2seq"
    for item, outcome in zip(FREE.items, found, strict=True):
        options = {"max_new_tokens": 6, "stop_tokens": [BYTES.eos_id], "stop_strings": ["\n"], "tokenizer": BYTES}
        out = generate(model, params, [BYTES.encode(item.question, eos=eos)] * 4, **options)
        assert outcome.text == out.texts[0]
        assert outcome.prediction == (out.texts[0].strip() or None)


def test_stop_strings_and_rules_of_extraction(decoder):
    whole = write(*decoder, BYTES, FREE, asked(FREE)[:1], batch_size=4)[0].text
    stop = whole[2]
    task = replace(FREE, stop=(stop,), extract="last_number")
    outcome = write(*decoder, BYTES, task, asked(FREE)[:1], batch_size=4)[0]
    assert outcome.text == whole[: whole.index(stop)] and outcome.prediction is None
    assert ask.read(task, ITEMS[0], "so 7 and 1,200.") == ask.Outcome("a", "1200", text="so 7 and 1,200.")


def test_drawn_answers_depend_on_key_and_item_alone(decoder):
    draw = {"sampling": Sampling(temperature=1.0), "batch_size": 4}
    first = write(*decoder, BYTES, FREE, asked(FREE), **draw)
    assert write(*decoder, BYTES, FREE, asked(FREE), **draw) == first
    assert write(*decoder, BYTES, FREE, asked(FREE)[2:3], **draw) == first[2:3]
    assert first[1].text != first[3].text  # the same prompt, another item
    assert write(*decoder, BYTES, FREE, asked(FREE), key=1, **draw) != first


def test_a_soft_prompt_is_read(decoder):
    model, params = decoder
    tuned = attach(params, {"method": "prompt", "length": 3, "init": "random"}, jax.random.key(5), config=model.config)
    found = choose(model, tuned, BYTES, CHOICES, asked(CHOICES)[:1], batch_size=4)[0]
    pairs = [(ITEMS[0].question, choice) for choice in ITEMS[0].choices]
    wanted = score_pairs(model, tuned, BYTES, pairs, virtual=virtual_ids(tuned), batch_size=4)
    np.testing.assert_allclose(found.scores, -wanted.nats, atol=1e-4)
    bare = choose(model, params, BYTES, CHOICES, asked(CHOICES)[:1], batch_size=4)[0]
    assert np.abs(np.subtract(found.scores, bare.scores)).max() > 0.1
    assert ask.count(model, tuned, BYTES)[1] == ask.count(model, params, BYTES)[1] - 3


def test_long_prompts_lose_their_beginning(decoder):
    long = Asked(FREE.items[0], "x" * 40 + "The question?" * 2)
    with pytest.raises(
        ValueError, match=r"free: item 'a' has a prompt of 66 tokens; beside 6 new ones the model takes 59"
    ):
        write(*decoder, BYTES, FREE, [long], batch_size=4)
    cut = write(*decoder, BYTES, FREE, [long], long="cut", batch_size=4)[0]
    assert cut == write(*decoder, BYTES, FREE, [Asked(long.item, long.prompt[-59:])], batch_size=4)[0]


def test_any_callable_answers():
    seen = []

    def answer(prompts):
        seen.extend(prompts)
        return [f" {prompt[:2]}\nand more" for prompt in prompts]

    found = write_by(answer, FREE, asked(FREE))
    assert len(seen) == 3  # equal prompts once
    assert [o.text for o in found] == [" Is", " Q", " Is", " Q"]
    assert [o.prediction for o in found] == ["Is", "Q", "Is", "Q"]
    with pytest.raises(ConnectionError, match="free: 1 of 3 prompts got no answer; the first: timed out"):
        write_by(lambda prompts: ["x", NoAnswer("timed out"), "y"], FREE, asked(FREE))
