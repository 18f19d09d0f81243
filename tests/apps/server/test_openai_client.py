"""The official `openai` client against a live server: everything that is served, whole and streamed."""

import json
from itertools import chain

import numpy as np
import pytest

from tests.apps.server.conftest import CALL, served, wait_until
from tests.apps.server.scripted import Scripted

openai = pytest.importorskip("openai")
from openai.types import Completion, CreateEmbeddingResponse, Model  # noqa: E402
from openai.types.chat import ChatCompletion, ChatCompletionChunk  # noqa: E402

pytestmark = pytest.mark.oracle
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def checked(kind, answer):
    """Held to the client's own types, which it does not do by itself."""
    return kind.model_validate(answer.model_dump())


def test_models(openai_client):
    listed = [checked(Model, model).id for model in openai_client.models.list()]
    assert listed == ["scripted", "team/adapter", "tiny-embedder"]
    assert openai_client.models.retrieve("team/adapter").id == "team/adapter"
    with pytest.raises(openai.NotFoundError, match="did you mean 'scripted'"):
        openai_client.models.retrieve("scriptd")


def test_completion(openai_client, scripted_server):
    answer = checked(Completion, openai_client.completions.create(model="scripted", prompt="Say hello", max_tokens=30))
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, choice.logprobs) == ("Hello there, friend", "stop", None)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (9, 19, 28)
    short = openai_client.completions.create(model="scripted", prompt="Say hello")
    assert (short.choices[0].text, short.choices[0].finish_reason) == ("Hello there, fri", "length")
    stopped = openai_client.completions.create(model="scripted", prompt="Say hello", stop=["zzz", ", "], max_tokens=30)
    assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == ("Hello there", "stop")


def test_every_sampling_parameter_reaches_the_engine(openai_client, scripted_server):
    ours = {"top_k": 7, "min_p": 0.25, "repetition_penalty": 1.5}
    openai_client.completions.create(
        model="team/adapter", prompt=[72, 105], seed=11, n=2, temperature=0.5, top_p=0.75, max_tokens=4, stop="q",
        extra_body=ours, presence_penalty=0, frequency_penalty=0.0, best_of=1,
    )  # fmt: skip
    first, second = scripted_server.engine.asked[-2:]
    told = {
        name: getattr(first, name) for name in ("model", "prompt", "temperature", "top_p", "max_new_tokens", "stop")
    }
    expected = {"model": "team/adapter", "prompt": [72, 105], "temperature": 0.5, "top_p": 0.75, "max_new_tokens": 4}
    assert told == expected | {"stop": ("q",)}
    assert {name: getattr(first, name) for name in ours} == ours
    assert (first.seed, second.seed) == (11, 12)


def test_same_seed_same_text(openai_client):
    ask = lambda **more: openai_client.completions.create(model="scripted", prompt="x", max_tokens=40, **more)  # noqa: E731
    texts = lambda answer: [choice.text for choice in answer.choices]  # noqa: E731
    assert texts(ask(seed=5, n=3)) == texts(ask(seed=5, n=3))
    assert len(set(texts(ask(seed=5, n=3)))) == 3
    assert texts(ask(seed=5, n=3))[1:] == texts(ask(seed=6, n=2))
    assert texts(ask()) != texts(ask())


def test_logprobs_and_echo(openai_client):
    answer = openai_client.completions.create(
        model="scripted", prompt=["Say hello", "ab"], n=2, max_tokens=1, logprobs=2, echo=True
    )
    checked(Completion, answer.model_copy(update={"choices": []}))  # null for the first token is not in its types
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    choice = answer.choices[0]
    told = choice.logprobs
    assert choice.text == "Say helloH" == "".join(told.tokens)
    assert told.token_logprobs == [None, *[-0.5] * 9]
    assert told.text_offset == list(range(10))
    assert (told.top_logprobs[0], told.top_logprobs[9]) == (None, {"H": -0.5, "I": -1.5})
    assert answer.choices[2].text[:2] == "ab"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 4)


def test_streamed_completion_is_the_whole_one(openai_client):
    asked = {"model": "scripted", "prompt": ["Say hello", "other"], "n": 2, "seed": 3, "max_tokens": 40, "logprobs": 1}
    whole = openai_client.completions.create(**asked)
    chunks = list(openai_client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None and chunk.object == "text_completion" for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1
    for choice in whole.choices:
        parts = [part for chunk in chunks for part in chunk.choices if part.index == choice.index]
        assert len(parts) > 4 and "".join(part.text for part in parts) == choice.text
        assert [part.finish_reason for part in parts[:-1]] == [None] * (len(parts) - 1)
        assert parts[-1].finish_reason == choice.finish_reason
        for name in ("text_offset", "token_logprobs"):
            pieces = [getattr(part.logprobs, name) for part in parts]
            assert [*chain.from_iterable(pieces)] == getattr(choice.logprobs, name)


def chat(client, content, **more):
    return client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": content}], **more)


def test_chat(openai_client, scripted_server):
    answer = checked(
        ChatCompletion, chat(openai_client, "Say hello", logprobs=True, top_logprobs=2, max_completion_tokens=5)
    )
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason, choice.message.role) == ("Hello", "length", "assistant")
    told = choice.logprobs.content
    assert [(t.token, t.logprob, bytes(t.bytes)) for t in told][:2] == [("H", -0.5, b"H"), ("e", -0.5, b"e")]
    assert [t.token for t in told[0].top_logprobs] == ["H", "I"]
    messages = [{"role": "developer", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "p"}] * 2}]
    openai_client.chat.completions.create(model="scripted", messages=messages)
    plain = [{"role": "system", "content": "s"}, {"role": "user", "content": "pp"}]
    assert scripted_server.engine.asked[-1].prompt == plain
    assert scripted_server.engine.asked[-1].max_new_tokens is None


def test_streamed_chat(openai_client):
    asked = {"seed": 8, "n": 2, "logprobs": True}
    whole = chat(openai_client, "hm", **asked)
    chunks = list(chat(openai_client, "hm", **asked, stream=True, stream_options={"include_usage": True}))
    for chunk in chunks:
        checked(ChatCompletionChunk, chunk)
    assert chunks[-1].usage == whole.usage
    for choice in whole.choices:
        parts = [part for chunk in chunks for part in chunk.choices if part.index == choice.index]
        assert (parts[0].delta.role, parts[-1].finish_reason) == ("assistant", "stop")
        assert "".join(part.delta.content or "" for part in parts) == choice.message.content
        told = [part.logprobs.content for part in parts if part.logprobs]
        assert [*chain.from_iterable(told)] == choice.logprobs.content


@pytest.mark.parametrize(
    ("prompt", "said", "calls"),
    [
        ("weather?", "I look.", [("weather", {"city": "Köln"})]),
        ("two?", "I look.", [("weather", {"city": "Köln"}), ("time", {})]),
        ("json?", None, [("weather", {"city": "Bonn"})]),
        ("broken?", '<tool_call>{"name": "weather", "argum</tool_call> and so on', []),
        ("angle?", "1 < 2 and <tool", []),
        ("Say hello", "Hello there, friend", []),
    ],
)
def test_tool_calls(openai_client, prompt, said, calls):
    answer = checked(ChatCompletion, chat(openai_client, prompt, tools=[WEATHER]))
    (choice,) = answer.choices
    found = [(c.function.name, json.loads(c.function.arguments)) for c in choice.message.tool_calls or []]
    assert (choice.message.content, found) == (said, calls)
    assert choice.finish_reason == ("tool_calls" if calls else "stop")

    with openai_client.chat.completions.stream(
        model="scripted", messages=[{"role": "user", "content": prompt}], tools=[WEATHER]
    ) as stream:
        stream.until_done()
        final = stream.get_final_completion().choices[0]
    found = [(c.function.name, json.loads(c.function.arguments)) for c in final.message.tool_calls or []]
    assert ((final.message.content or None), found, final.finish_reason) == (said, calls, choice.finish_reason)


def test_a_whole_round_of_tools(openai_client, scripted_server):
    first = chat(openai_client, "weather?", tools=[WEATHER]).choices[0].message
    asked = [
        {"role": "user", "content": "weather?"},
        first.model_dump(),  # with all the nulls that the client's types have
        {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "sunny"},
    ]
    openai_client.chat.completions.create(model="scripted", messages=asked, tools=[WEATHER])
    ask = scripted_server.engine.asked[-1]
    assert ask.prompt[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Köln"}  # as templates read them
    assert ask.tools == [WEATHER]


def test_without_tools_a_call_is_text(openai_client, scripted_server):
    assert chat(openai_client, "weather?").choices[0].message.content == CALL
    assert chat(openai_client, "weather?", tools=[WEATHER], tool_choice="none").choices[0].message.content == CALL
    assert scripted_server.engine.asked[-1].tools == []


def test_embeddings(openai_client, scripted_server):
    texts = ["banana", "", "é a"]
    answer = checked(CreateEmbeddingResponse, openai_client.embeddings.create(model="tiny-embedder", input=texts))
    rows = scripted_server.engine.embed(texts)
    np.testing.assert_array_equal(np.asarray([d.embedding for d in answer.data], np.float32), rows)  # came as base64
    assert answer.usage.total_tokens == 3
    one = openai_client.embeddings.create(model="tiny-embedder", input="banana", encoding_format="float")
    np.testing.assert_array_equal(np.asarray(one.data[0].embedding, np.float32), rows[0])
    with pytest.raises(openai.BadRequestError, match="no embedding"):
        openai_client.embeddings.create(model="tiny-embedder", input="fault")
    with pytest.raises(openai.NotFoundError, match="have \\['tiny-embedder'\\]"):
        openai_client.embeddings.create(model="scripted", input="x")


def test_errors_are_those_of_openai(openai_client):
    with pytest.raises(openai.NotFoundError) as error:
        openai_client.completions.create(model="gpt-4", prompt="x")
    assert (error.value.code, error.value.param, error.value.type) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    with pytest.raises(openai.BadRequestError) as error:
        openai_client.completions.create(model="scripted", prompt="x", presence_penalty=0.5)
    assert error.value.param == "presence_penalty"
    with pytest.raises(openai.BadRequestError, match="window 2000") as error:
        chat(openai_client, "x" * 2000)
    assert (error.value.code, error.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.BadRequestError) as error:
        openai_client.completions.create(model="scripted", prompt=[500])
    assert (error.value.code, error.value.param) == ("invalid_value", "prompt")


def test_full_key_and_fault():
    engine = Scripted({"slow": "x" * 1000, "bad": "y" * 9}, slots=1, queue=1, pause=0.005, faults=("bad",))
    with (
        served(engine, key="secret") as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0) as client,
    ):
        stream = client.completions.create(model="scripted", prompt="slow", max_tokens=900, stream=True)
        wait_until(lambda: engine.figures()["running"] == 1)
        other = client.completions.create(model="scripted", prompt="slow", max_tokens=900, stream=True)
        with pytest.raises(openai.RateLimitError) as error:
            client.completions.create(model="scripted", prompt="x")
        assert error.value.response.headers["retry-after"] == "1"
        other.close()
        stream.close()
        wait_until(lambda: engine.figures()["running"] + engine.figures()["queued"] == 0)
        with pytest.raises(openai.InternalServerError, match="it broke"):
            client.completions.create(model="scripted", prompt="bad")
        with pytest.raises(openai.APIError, match="it broke"):
            list(client.completions.create(model="scripted", prompt="bad", stream=True))
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()
