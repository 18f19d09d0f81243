"""A model at an address: a small server in this process that says what it was asked; retries are the judge's tests."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from research.apps.protocol import LanguageModel, Options, Token
from research.apps.remote import Address, RemoteModel

CHAT = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        content = self.server.rule(self.path, body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + self.server.promised))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def events(*objects):
    return (
        b": hello\n\n" + b"".join(b"data: " + json.dumps(o).encode() + b"\n\n" for o in objects) + b"data: [DONE]\n\n"
    )


def answer(path, body):
    """Both forms, as OpenAI's reference shows them."""
    text = f"{body.get('prompt', 'chat')}/{body.get('seed')}"
    chat = path.endswith("/chat/completions")
    if body.get("stream"):
        deltas = [{"delta": {"role": "assistant"}}, *({"delta": {"content": piece}} for piece in ("a", "é", "c"))]
        choices = deltas if chat else [{"text": piece} for piece in ("a", "é", "c")]
        return events(*({"choices": [choice]} for choice in choices), {"choices": [], "usage": USAGE})
    if body.get("tools"):
        message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
        return json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
    told = {"tokens": ["a", "b"], "token_logprobs": [-0.5, -1.0]}
    if chat:
        told = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.0}]}
    said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    logprobs = told if body.get("logprobs") else None
    return json.dumps({"choices": [{**said, "finish_reason": "length", "logprobs": logprobs}], "usage": USAGE}).encode()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(rule=answer, promised=0, **options):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.rule, server.asked, server.promised = rule, [], promised
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1/"
        return server, RemoteModel(Address(url, pause=0.01, timeout=5.0, tries=2), "m", **options)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_texts_and_chats_go_where_they_belong(serve):
    server, model = serve()
    assert isinstance(model, LanguageModel)
    replies = model.write(["x", CHAT, "y"], Options(max_new_tokens=7, stop=("\n",), logprobs=True))
    assert [reply.text for reply in replies] == ["x/None", "chat/None", "y/None"]
    assert all(reply.tokens == (Token("a", -0.5), Token("b", -1.0)) for reply in replies)
    assert all((reply.finish, reply.usage) == ("length", (3, 2)) for reply in replies)
    asked = dict(server.asked)
    assert asked["/v1/chat/completions"]["messages"] == CHAT
    for body in asked.values():
        assert (body["model"], body["max_tokens"], body["temperature"], body["stop"]) == ("m", 7, 0.0, ["\n"])
    assert model.write([]) == []


def test_each_place_draws_its_own_noise(serve):
    _, model = serve()
    options = Options(temperature=0.7, seed=2)
    texts = [reply.text for reply in model.write(["x"] * 3, options)]
    assert len(set(texts)) == 3
    assert texts == [reply.text for reply in model.write(["x"] * 3, options)]


def test_tools_are_offered_and_calls_come_back(serve):
    server, model = serve()
    (reply,) = model.write([CHAT], Options(tools=(TOOL,)))
    assert (reply.text, reply.finish, reply.calls) == ("", "tool_calls", (CALL,))
    assert server.asked[0][1]["tools"] == [TOOL]
    with pytest.raises(ValueError, match="no place for tools"):
        model.write(["x"], Options(tools=(TOOL,)))


@pytest.mark.parametrize("prompt", ["x", CHAT])
def test_a_stream_comes_in_pieces(serve, prompt):
    server, model = serve()
    assert list(model.stream(prompt)) == ["a", "é", "c"]
    assert server.asked[0][1]["stream"] is True


@pytest.mark.parametrize(
    ("rule", "promised", "reason"),
    [
        (lambda *_: events({"choices": [{"text": "a"}]}, {"error": {"message": "out of memory"}}), 0, "out of memory"),
        (lambda *_: b"data: {not json\n\n", 0, "JSONDecodeError"),
        (lambda *_: events({"choices": [{"text": "a"}]})[:-14], 100, "broke off"),
    ],
)
def test_a_stream_that_breaks_off_says_so(serve, rule, promised, reason):
    _, model = serve(rule, promised)
    with pytest.raises(ConnectionError, match=reason):
        list(model.stream("x"))


@pytest.mark.parametrize(
    "body", [b"[]", b'{"choices": [{"text": 5}]}', b'{"choices": [{"message": {"content": "x"}}]}']
)
def test_something_else_than_a_completion_is_told(serve, body):
    server, model = serve(lambda *_: body)
    with pytest.raises(ConnectionError, match=r"expected.*\(tried 2 times\)"):
        model.write(["x"])
    assert len(server.asked) == 2


def test_the_window_is_kept_where_it_is_known(serve):
    server, model = serve(window=4)
    assert model.count("äb") == 3
    with pytest.raises(ValueError, match="4 tokens leaves no room in a window of 4"):
        model.write(["äbc"])
    assert serve(window=4, count_tokens=lambda text: 1)[1].write(["äbcdef"])[0].text == "äbcdef/None"
    assert not server.asked
