"""Clients that vanish or dawdle, answers that take too long, an end while something runs, figures, the key."""

import http.client
import json
import socket
import threading
import time

import pytest

from research.apps.server import Embeddings, Limits, app
from research.apps.serving import Ask
from tests.apps.server.conftest import get, post, served, wait_until
from tests.apps.server.scripted import Scripted

LONG = {"model": "scripted", "prompt": "long", "max_tokens": 1900}


def slow(**options):
    return Scripted({"long": "word " * 380}, pause=0.005, **options)


def idle(engine):
    figures = engine.figures()
    return figures["running"] == figures["queued"] == 0


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"n": 3}], ids=["whole", "stream", "several"])
def test_a_client_that_vanishes_frees_its_slots(more):
    engine = slow(slots=2)
    with served(engine) as server:
        sent = socket.create_connection(("127.0.0.1", server.port))
        raw = json.dumps(LONG | more).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}"
        )
        sent.sendall(head.encode() + b"\r\n\r\n" + raw)
        wait_until(lambda: engine.figures()["running"] == min(more.get("n", 1), 2))
        sent.close()
        wait_until(lambda: idle(engine))
        assert len(engine.cancelled) == more.get("n", 1)
        assert post(server, "/v1/completions", LONG | {"max_tokens": 4})[0] == 200


def test_none_or_all_of_several_are_queued():
    engine = slow(slots=1, queue=2)
    with served(engine) as server:
        status, headers, raw = post(server, "/v1/completions", LONG | {"n": 8})
        assert (status, headers["Retry-After"]) == (429, "1")
        assert json.loads(raw)["error"]["code"] == "queue_full"
        wait_until(lambda: idle(engine))


def test_out_of_time():
    engine = slow()
    with served(engine, limits=Limits(seconds=0.2)) as server:
        status, _, raw = post(server, "/v1/completions", LONG)
        assert (status, json.loads(raw)["error"]["code"]) == (504, "timeout")
        status, headers, raw = post(server, "/v1/completions", LONG | {"stream": True})
        assert (status, headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        events = raw.decode().split("\n\n")
        assert json.loads(events[-2].removeprefix("data: "))["error"]["type"] == "timeout_error"
        wait_until(lambda: idle(engine))


def test_a_stream_as_it_is_on_the_wire(scripted_server):
    body = {"model": "scripted", "prompt": "Say hello", "max_tokens": 4, "stream": True}
    raw = post(scripted_server, "/v1/completions", body)[2].decode()
    events = raw.split("\n\n")
    assert events[-1] == "" and events[-2] == "data: [DONE]"
    told = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert all(event.startswith("data: {") for event in events[:-2])
    assert [one["choices"][0]["text"] for one in told] == ["Hel", "l", ""]
    assert [one["choices"][0]["finish_reason"] for one in told] == [None, None, "length"]


def test_a_body_that_does_not_come():
    with served(Scripted(), limits=Limits(body_seconds=0.2)) as server:
        sent = socket.create_connection(("127.0.0.1", server.port))
        sent.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        sent.sendall(b"Content-Length: 100\r\n\r\n{")
        sent.settimeout(5)
        assert b" 408 " in sent.recv(4096).splitlines()[0]
        sent.close()


def test_a_large_body_is_refused_before_and_while_it_comes():
    with served(Scripted(), limits=Limits(body=1000)) as server:
        status, _, raw = post(server, "/v1/completions", b"{" + b" " * 2000 + b"}")
        assert (status, json.loads(raw)["error"]["message"]) == (413, "the body may have at most 1000 bytes")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        pieces = (b" " * 400 for _ in range(4))  # chunked: its length is not told
        connection.request("POST", "/v1/completions", pieces, {"Content-Type": "application/json"}, encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()


def test_the_end_waits_for_what_runs():
    engine = Scripted({"long": "word " * 20}, pause=0.01)
    found = []
    with served(engine) as server:
        asking = threading.Thread(target=lambda: found.append(post(server, "/v1/completions", LONG)))
        asking.start()
        wait_until(lambda: engine.figures()["running"] == 1)
    asking.join()
    status, _, raw = found[0]
    assert (status, json.loads(raw)["choices"][0]["text"]) == (200, "word " * 20)
    assert not engine.thread.is_alive()


def test_only_who_has_the_key_comes_in():
    engine = Scripted()
    with served(engine, key="secret") as server:
        for headers in (
            {},
            {"Authorization": "Bearer secre"},
            {"Authorization": "Basic secret"},
            {"Authorization": ""},
        ):
            for path in ("/v1/models", "/metrics", "/nothing"):
                status, told, raw = get(server, path, headers)
                assert (status, told["WWW-Authenticate"]) == (401, "Bearer")
                assert json.loads(raw)["error"]["code"] == "invalid_api_key"
            assert post(server, "/v1/completions", LONG, headers)[0] == 401
        assert get(server, "/v1/models", {"Authorization": "bearer secret"})[0] == 200
        assert get(server, "/health")[0] == get(server, "/openapi.json")[0] == 200
        assert not engine.asked


def test_metrics_are_read_by_prometheus(scripted_server):
    parser = pytest.importorskip("prometheus_client.parser")
    get(scripted_server, "/v1/models/none")
    status, headers, raw = get(scripted_server, "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = {family.name: family for family in parser.text_string_to_metric_families(raw.decode())}
    assert (families["lifecycle_slots"].type, families["lifecycle_slots"].samples[0].value) == ("gauge", 4)
    assert families["lifecycle_requests"].type == "counter"
    answers = {tuple(sample.labels.values()): sample.value for sample in families["lifecycle_http_responses"].samples}
    assert answers[("/v1/models/{model}", "404")] >= 1


def test_a_fault_of_the_server_is_told_in_the_same_shape(monkeypatch):
    engine = Scripted()
    monkeypatch.setattr(engine, "embed", lambda texts: {}["no such key"])
    with served(engine, embeddings=Embeddings("vectors", len)) as server:
        status, _, raw = post(server, "/v1/embeddings", {"model": "vectors", "input": "x"})
        assert (status, json.loads(raw)["error"]["type"]) == (500, "server_error")
        assert "no such key" not in raw.decode()
        assert b'{address="/v1/embeddings",status="500"} 1\n' in get(server, "/metrics")[2]


def test_document_shows_the_limits(scripted_server):
    document = json.loads(get(scripted_server, "/openapi.json")[2])
    assert document["openapi"] == "3.1.0"
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/embeddings"):
        reference = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert reference.split("/")[-1] in document["components"]["schemas"]
    assert document["components"]["schemas"]["Completion"]["properties"]["n"]["maximum"] == Limits().n


def test_routes_and_document_agree():
    server = app(Scripted())
    document = json.loads(json.dumps(server.routes[-1].endpoint.__self__.described))
    routes = {route.path.replace(":path", ""): sorted(route.methods - {"HEAD"}) for route in server.routes}
    assert routes == {path: [method.upper() for method in told] for path, told in document["paths"].items()}


def test_scripted_engine_cancels():
    """The tests above rest on it."""
    engine, found = slow(slots=1), []
    number = engine.submit(Ask("long", "scripted"), found.append)
    time.sleep(0.02)
    engine.cancel(number)
    wait_until(lambda: idle(engine))
    assert found[-1].finish == "cancelled"
    engine.close()
