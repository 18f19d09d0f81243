"""Our models in LangChain: its messages, its tool binding, its streams and a chain, all driven by `langchain-core`."""

import pytest

from research.apps.calls import call
from research.apps.langchain_model import as_langchain
from research.apps.protocol import Options, Reply, Token, Usage
from tests.apps.scripted import Scripted

core = pytest.importorskip("langchain_core", reason="langchain-core is an oracle: pip install 'lifecycle[oracles]'")
pytestmark = pytest.mark.oracle


def test_messages_go_in_as_openai_writes_them_and_come_back_with_usage():
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

    model = Scripted([Reply("Yes.", "stop", Usage(5, 2), (Token("Yes.", -0.1),))])
    asked = [
        SystemMessage("Be short."),
        HumanMessage("Hi"),
        AIMessage("", tool_calls=[{"name": "add", "args": {"x": 1}, "id": "c1"}]),
        ToolMessage("2", tool_call_id="c1"),
    ]
    reply = as_langchain(model, Options(max_new_tokens=9)).invoke(asked, stop=["\n"])
    (messages, options), (system, user, assistant, tool) = model.asked[0], model.asked[0][0]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]
    assert (system["content"], user["content"], tool["content"], tool["tool_call_id"]) == ("Be short.", "Hi", "2", "c1")
    assert assistant["tool_calls"][0]["function"]["name"] == "add"
    assert (options.stop, options.max_new_tokens) == (("\n",), 9)
    assert (reply.content, reply.usage_metadata["total_tokens"]) == ("Yes.", 7)
    assert reply.response_metadata["finish_reason"] == "stop"
    assert reply.response_metadata["logprobs"]["content"] == [{"text": "Yes.", "logprob": -0.1}]


def test_bound_tools_are_called():
    from langchain_core.tools import tool

    @tool
    def add(x: int, y: int) -> int:
        """Adds."""
        return x + y

    said = (call("add", '{"x": 1, "y": 2}', "c1"), call("add", "{x}", "c2"))
    model = Scripted(lambda prompt: Reply("", "tool_calls", Usage(5, 2), (), said))
    bound = as_langchain(model).bind_tools([add])
    reply = bound.invoke("1 and 2?")
    assert model.asked[0][1].tools[0]["function"]["name"] == "add"
    assert add.invoke(reply.tool_calls[0]).content == "3"
    assert [one["id"] for one in reply.invalid_tool_calls] == ["c2"]
    whole = None
    for chunk in bound.stream("1 and 2?"):
        whole = chunk if whole is None else whole + chunk
    assert whole.tool_calls[0]["args"] == {"x": 1, "y": 2}
    with pytest.raises(ValueError, match="chooses its tools itself"):
        as_langchain(model).bind_tools([add], tool_choice="any")


def test_streams_batches_and_chains():
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    model = as_langchain(Scripted(lambda prompt: f"<{prompt[-1]['content']}>"))
    assert "".join(chunk.content for chunk in model.stream("abc")) == "<abc>"
    assert [reply.content for reply in model.batch(["a", "b"])] == ["<a>", "<b>"]
    chain = ChatPromptTemplate.from_messages([("human", "Say {word}")]) | model | StrOutputParser()
    assert chain.invoke({"word": "x"}) == "<Say x>"
    with pytest.raises(ValueError, match=r"unknown settings \['temperature'\]"):
        model.invoke("x", temperature=1.0)
