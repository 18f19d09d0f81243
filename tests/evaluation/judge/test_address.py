"""A judge behind an address: a small server in this process that answers, fails, recovers, or keeps silent."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from research.evaluation.judge import Address, NoAnswer, compare


class Server(ThreadingHTTPServer):
    """Answers by a rule: (prompt, how often it was asked) -> (status, body) or seconds of silence."""

    daemon_threads = True

    def __init__(self, rule):
        super().__init__(("127.0.0.1", 0), Handler)
        self.rule, self.asked, self.lock = rule, [], threading.Lock()
        self.times: dict[str, int] = {}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        with self.server.lock:
            self.server.asked.append((self.path, dict(self.headers), body))
            self.server.times[prompt] = self.server.times.get(prompt, 0) + 1
        answer = self.server.rule(prompt, self.server.times[prompt])
        if isinstance(answer, float):
            time.sleep(answer)
            self.close_connection = True
            return
        status, content = answer
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def said(text):
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(rule, **options):
        server = Server(rule)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server, Address(server.url, "judge-1", **({"pause": 0.01, "timeout": 5.0} | options))

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_answers_come_in_order_and_under_way_together(serve):
    barrier = threading.Barrier(4, timeout=5)

    def rule(prompt, _):
        barrier.wait()  # passes only when four prompts are under way at once
        time.sleep(0.02 * (int(prompt) % 4))
        return said(f"answer {prompt}")

    server, judge = serve(rule, workers=4, temperature=0.5, max_tokens=9)
    assert judge([str(i) for i in range(8)]) == [f"answer {i}" for i in range(8)]
    path, headers, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge-1", 0.5, 9)
    assert len(server.asked) == 8


def test_the_key_comes_from_the_environment(serve, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    server, judge = serve(lambda prompt, _: said("[[A]]"), key_variable="JUDGE_KEY")
    assert judge(["?"]) == ["[[A]]"]
    assert server.asked[0][1]["Authorization"] == "Bearer secret"
    assert "secret" not in repr(judge)
    with pytest.raises(ValueError, match="OTHER_KEY is not set"):
        serve(lambda prompt, _: said(""), key_variable="OTHER_KEY")


@pytest.mark.parametrize("failure", [(503, b"busy"), (429, b"slow down"), (200, b"<html>"), (200, b'{"choices": []}')])
def test_what_may_pass_is_tried_again(serve, failure):
    server, judge = serve(lambda prompt, times: said("fine") if times == 3 else failure)
    assert judge(["a", "b"]) == ["fine", "fine"]
    assert len(server.asked) == 6


def test_pauses_grow(serve):
    stamps = []

    def rule(prompt, _):
        stamps.append(time.monotonic())
        return 500, b""

    _, judge = serve(rule, tries=4, pause=0.05)
    assert isinstance(judge(["a"])[0], NoAnswer)
    gaps = [b - a for a, b in zip(stamps, stamps[1:], strict=False)]
    assert len(gaps) == 3
    assert all(gap >= 0.05 * 2**k for k, gap in enumerate(gaps))


@pytest.mark.parametrize(("status", "body"), [(401, b"no such\nkey"), (404, b"no model"), (302, b"")])
def test_what_stays_wrong_is_asked_once(serve, status, body):
    server, judge = serve(lambda prompt, _: (status, body))
    (answer,) = judge(["a"])
    assert isinstance(answer, NoAnswer)
    assert str(status) in answer and " ".join(body.decode().split()) in answer
    assert "\n" not in answer
    assert len(server.asked) == 1


def test_silence_ends_after_the_timeout(serve):
    server, judge = serve(lambda prompt, _: 1.0 if prompt == "b" else said("[[A]]"), timeout=0.2, tries=2)
    begun = time.monotonic()
    answers = judge(["a", "b", "c"])
    assert time.monotonic() - begun < 2
    assert [isinstance(answer, NoAnswer) for answer in answers] == [False, True, False]
    assert "timed out" in answers[1] and "2 times" in answers[1]
    assert server.times == {"a": 1, "b": 2, "c": 1}


def test_a_comparison_counts_what_the_address_lost_and_refuses_when_all_is_lost(serve):
    pairs = [{"question": q, "answer_a": "x", "answer_b": "y"} for q in ("lost", "kept")]
    _, judge = serve(lambda prompt, _: (400, b"too long") if "lost" in prompt else said("[[C]]"))
    found = compare(judge, pairs)
    assert found.verdicts == [None, "tie"]
    assert found.summary()["no_answer"] == 0.5
    _, judge = serve(lambda prompt, _: (400, b"too long"))
    with pytest.raises(ValueError, match=r"none of 4 prompts: 4 got no answer.*400 Bad Request too long"):
        compare(judge, pairs)


def test_nobody_at_the_address(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_address[1]
    (answer,) = Address(f"http://127.0.0.1:{port}/v1", "m", tries=2, pause=0.01, timeout=2)(["?"])
    assert isinstance(answer, NoAnswer)
    assert "refused" in answer
