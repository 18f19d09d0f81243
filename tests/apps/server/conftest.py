"""A server before a scripted engine, on a free port of this machine, and the official client."""

import contextlib
import http.client
import json
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from research.apps.server import Embeddings, app
from tests.apps.server.scripted import Scripted


@contextlib.contextmanager
def served(engine, **options):
    """The address of a live server; it ends gracefully."""
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app(engine, **options), log_level="error", timeout_graceful_shutdown=5, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield SimpleNamespace(
            url=f"http://127.0.0.1:{listening.getsockname()[1]}", engine=engine, port=listening.getsockname()[1]
        )
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def wait_until(true, seconds=5.0):
    """Waits for what another thread does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def post(server, path, body, headers=None):
    """(status, headers, body) of one request."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(server, "POST", path, raw, {"Content-Type": "application/json"} | (headers or {}))


def get(server, path, headers=None):
    """The same without a body."""
    return ask(server, "GET", path, None, headers or {})


def ask(server, method, path, raw, headers):
    """(status, headers, body) of any request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, raw, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


CALL = 'I look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
REPLIES = {
    "Say hello": "Hello there, friend",
    "weather?": CALL,
    "two?": CALL + '<tool_call>{"name": "time", "arguments": {}}</tool_call>',
    "json?": '{"name": "weather", "arguments": {"city": "Bonn"}}',
    "broken?": '<tool_call>{"name": "weather", "argum</tool_call> and so on',
    "angle?": "1 < 2 and <tool",
    "weather?\nI look.\nsunny": "It is sunny in Köln.",
}


@pytest.fixture(scope="session")
def scripted_server():
    """One for all tests that leave it as it was."""
    embeddings = Embeddings("tiny-embedder", lambda texts: sum(len(text.split()) for text in texts))
    with served(Scripted(REPLIES), embeddings=embeddings) as server:
        yield server
        wait_until(lambda: server.engine.figures()["running"] == server.engine.figures()["queued"] == 0)


@pytest.fixture
def openai_client(scripted_server):
    """The official client of that server."""
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{scripted_server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client
