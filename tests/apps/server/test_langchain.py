"""LangChain's OpenAI chat client, with tools, and its embeddings, against a live server."""

import numpy as np
import pytest

langchain_openai = pytest.importorskip("langchain_openai")
from langchain_core.messages import HumanMessage, ToolMessage  # noqa: E402
from langchain_core.tools import tool  # noqa: E402

pytestmark = pytest.mark.oracle


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return {"Köln": "sunny"}[city]


@pytest.fixture
def chat(scripted_server):
    return langchain_openai.ChatOpenAI(
        base_url=f"{scripted_server.url}/v1", api_key="unused", model="scripted", temperature=0, max_retries=0
    )


def test_chat(chat):
    answer = chat.invoke("Say hello", stop=[","], logprobs=True)
    assert answer.content == "Hello there"
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata["input_tokens"] == 9
    assert [t["token"] for t in answer.response_metadata["logprobs"]["content"]][:2] == ["H", "e"]
    pieces = list(chat.stream("Say hello"))
    assert len(pieces) > 5 and "".join(piece.content for piece in pieces) == "Hello there, friend"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_tools(chat, streamed):
    asked = [HumanMessage("weather?")]
    with_tools = chat.bind_tools([weather])
    if streamed:
        first, *rest = with_tools.stream(asked)
        for piece in rest:
            first += piece
        answer = first
    else:
        answer = with_tools.invoke(asked)
    (call,) = answer.tool_calls
    assert (call["name"], call["args"], answer.content) == ("weather", {"city": "Köln"}, "I look.")
    asked += [answer, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
    assert with_tools.invoke(asked).content == "It is sunny in Köln."


def test_embeddings(scripted_server):
    embeddings = langchain_openai.OpenAIEmbeddings(
        base_url=f"{scripted_server.url}/v1", api_key="unused", model="tiny-embedder", check_embedding_ctx_length=False
    )
    expected = scripted_server.engine.embed(["banana", "é a"])
    np.testing.assert_array_equal(np.asarray(embeddings.embed_documents(["banana", "é a"]), np.float32), expected)
