"""Our own client against the server: it hears what OpenAI's client hears, and its agent calls tools over it."""

import pytest

from research.apps.calling import converse
from research.apps.protocol import Options
from research.apps.remote import Address, RemoteModel
from research.apps.tools import Tools

CHAT = [{"role": "user", "content": "Say hello"}]


@pytest.fixture
def model(scripted_server):
    return RemoteModel(Address(f"{scripted_server.url}/v1", tries=1), "scripted")


@pytest.mark.oracle
def test_the_same_as_openais_client(model, openai_client):
    options = Options(max_new_tokens=30, stop=(", ",), logprobs=True)
    written, chatted = model.write(["Say hello", CHAT], options)
    common = {"model": "scripted", "max_tokens": 30, "stop": [", "], "temperature": 0}
    text = openai_client.completions.create(prompt="Say hello", logprobs=1, **common)
    said = openai_client.chat.completions.create(messages=CHAT, logprobs=True, **common)
    assert (written.text, written.finish) == (text.choices[0].text, text.choices[0].finish_reason)
    assert (chatted.text, chatted.finish) == (said.choices[0].message.content, said.choices[0].finish_reason)
    told = text.choices[0].logprobs
    assert list(written.tokens) == list(zip(told.tokens, told.token_logprobs, strict=True))
    assert list(chatted.tokens) == [(one.token, one.logprob) for one in said.choices[0].logprobs.content]
    for ours, theirs in ((written, text), (chatted, said)):
        assert ours.usage == (theirs.usage.prompt_tokens, theirs.usage.completion_tokens)
    for prompt in ("Say hello", CHAT):
        assert "".join(model.stream(prompt, options)) == "Hello there"
    with pytest.raises(ConnectionError, match=r"400 .*window"):
        model.write(["x" * 3000])


def test_an_agent_calls_tools_over_it(model):
    def weather(city: str) -> str:
        """The weather of a city."""
        return {"Köln": "sunny"}[city]

    trace, chat = converse(model, Tools([weather]), [{"role": "user", "content": "weather?"}])
    assert (trace.ended, trace.answer) == ("finish", "It is sunny in Köln.")
    assert [(step.action, step.observation) for step in trace.steps] == [("weather", "sunny"), ("", "")]
    assert [message["role"] for message in chat] == ["user", "assistant", "tool", "assistant"]
