"""A model here behind the protocol: against `generate`, against its own logits, and in a chat with tools."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.apps.protocol import LanguageModel, Options
from research.data.byte_tokenizer import ByteTokenizer
from research.data.chat import CHATML
from research.data.tokenizer import load_tokenizer
from research.decoding import generate
from research.decoding.local import LocalModel
from research.interop.llama2c import load_llama2c
from research.models import build, preset
from research.weights import attach

BYTES = ByteTokenizer()
SIZES = {"d_model": 16, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "d_ff": 32, "head_dim": 8}
PROMPTS = ["Once upon a time", "Lily", "Tom and his dog", "One day"]
TOOLS = ({"type": "function", "function": {"name": "add", "description": "", "parameters": {"type": "object"}}},)


@pytest.fixture(scope="module")
def stories(data_dir):
    """(model, params, tokenizer) of stories260K, which writes English."""
    folder = data_dir / "stories260K"
    config, params = load_llama2c(folder / "checkpoint_v1.bin")
    return build(config), params, load_tokenizer(folder / "tokenizer.bin")


@pytest.fixture(scope="module")
def local(stories):
    return LocalModel(*stories, batch_size=2)


def noisy(name, **sizes):
    model = build(preset(name).replace(vocab_size=BYTES.vocab_size, **SIZES, **sizes))
    generator = np.random.default_rng(0)
    return model, jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(0, 0.4, leaf.shape), leaf.dtype), model.abstract()
    )


@pytest.fixture(scope="module")
def decoder():
    return noisy("llama3.2-1b", max_length=96)


def test_portions_write_what_one_call_of_generate_writes(local, stories):
    assert isinstance(local, LanguageModel)
    options = Options(max_new_tokens=12, stop=("was",))
    model, params, tokenizer = stories
    ids = [tokenizer.encode(prompt, bos=True) for prompt in PROMPTS]
    plain = generate(model, params, ids, max_new_tokens=12, tokenizer=tokenizer, stop_tokens=[tokenizer.eos_id])
    replies = local.write(PROMPTS, options)
    for reply, text, prompt in zip(replies, plain.texts, PROMPTS, strict=True):
        assert reply.text == text.partition("was")[0]
        assert reply.finish == ("stop" if "was" in text else "length")
        assert reply.usage.prompt_tokens == local.count(prompt)
    assert {reply.finish for reply in replies} == {"stop", "length"}
    assert local.write([]) == []
    assert local.write([""], Options(max_new_tokens=1))[0].usage.prompt_tokens == 1


def test_noise_belongs_to_the_seed_and_the_place(local):
    options = Options(max_new_tokens=8, temperature=1.0, seed=3)
    first = [reply.text for reply in local.write(PROMPTS[:1] * 4, options)]
    assert len(set(first)) > 1
    assert first[0] == local.write(PROMPTS[:1], options)[0].text
    assert [reply.text for reply in local.write(["Lily", *PROMPTS[:1] * 3], options)][1:] == first[1:]


def test_logprobs_are_those_of_the_whole_text(local, stories):
    model, params, tokenizer = stories
    (reply,) = local.write(PROMPTS[:1], Options(max_new_tokens=8, logprobs=True))
    assert "".join(token.text for token in reply.tokens) == reply.text
    prompt = tokenizer.encode(PROMPTS[0], bos=True)
    ids = tokenizer.encode(PROMPTS[0] + reply.text, bos=True)
    tokens = jnp.asarray([ids])
    hidden = model.apply(params, {"tokens": tokens, "segment_ids": jnp.ones_like(tokens)}).hidden
    scores = np.asarray(jax.nn.log_softmax(model.logits(params, hidden)[0].astype(jnp.float32)))
    expected = [scores[i - 1, ids[i]] for i in range(len(prompt), len(ids))]
    np.testing.assert_allclose([token.logprob for token in reply.tokens], expected, atol=1e-4)


def test_a_stream_is_the_text_in_pieces_and_works_only_when_asked(local, monkeypatch):
    options = Options(max_new_tokens=12, stop=("was",))
    for prompt in PROMPTS[:2]:
        pieces = list(local.stream(prompt, options))
        assert "".join(pieces) == local.write([prompt], options)[0].text
        assert len(pieces) > 2
    stream, steps = local.stream(PROMPTS[0], options), []
    module = sys.modules["research.decoding.generate"]
    advance = module.advance
    monkeypatch.setattr(module, "advance", lambda *args: steps.append(1) or advance(*args))
    next(stream)
    stream.close()
    assert len(steps) <= 1


def test_a_chat_is_read_through_the_template_with_its_tools(decoder):
    template = (
        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% for c in m.tool_calls %}"
        "{{ c.function.arguments.x + 1 }}{% endfor %}{% endfor %}"
        "{% for t in tools or [] %}{{ t.function.name }};{% endfor %}>"
    )
    model = LocalModel(*decoder, BYTES, template=template)
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert model.count(chat) == len("u:hi\na:\n2>")
    (reply,) = model.write([chat], Options(max_new_tokens=2, tools=TOOLS))
    assert reply.usage.prompt_tokens == len("u:hi\na:\n2add;>")
    with pytest.raises(ValueError, match="chat template has no place for tools"):
        LocalModel(*decoder, BYTES, template=CHATML).write([chat], Options(tools=TOOLS))
    with pytest.raises(ValueError, match="no chat template"):
        LocalModel(*decoder, BYTES).write([chat])


def test_the_window_holds_prompt_and_answer(decoder):
    model = LocalModel(*decoder, BYTES, stops=())
    assert model.window == 96
    (reply,) = model.write(["x" * 90], Options(max_new_tokens=50))
    assert (reply.usage, reply.finish) == ((90, 6), "length")
    tuned = attach(decoder[1], {"method": "prompt", "length": 3}, jax.random.key(0), config=decoder[0].config)
    model = LocalModel(decoder[0], tuned, BYTES, stops=())
    assert model.window == 93  # a soft prompt takes its room
    assert model.write(["x" * 90], Options(max_new_tokens=50))[0].usage.completion_tokens == 3
    model = LocalModel(*decoder, BYTES)
    with pytest.raises(ValueError, match="96 tokens leaves no room in a window of 96"):
        model.write(["x" * 96])


def test_an_encoder_decoder_answers_too():
    model, params = noisy("t5-small", n_encoder_layers=1, max_length=64)
    local = LocalModel(model, params, BYTES)
    ids = [BYTES.encode(text, eos=True) for text in ("one", "two words")]
    expected = generate(model, params, ids, max_new_tokens=5, tokenizer=BYTES, stop_tokens=[BYTES.eos_id]).texts
    options = Options(max_new_tokens=5, logprobs=True)
    replies = local.write(["one", "two words"], options)
    assert [reply.text for reply in replies] == expected
    assert ["".join(token.text for token in reply.tokens) for reply in replies] == expected
    assert "".join(local.stream("one", options)) == expected[0]
