"""Requests drawn from the server's own OpenAPI document, valid and spoilt: never a fault, never a slot kept."""

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research.apps.server import Embeddings
from tests.apps.server.conftest import get, post, served, wait_until
from tests.apps.server.scripted import Scripted

POSTS = {"/v1/completions": "Completion", "/v1/chat/completions": "ChatCompletion", "/v1/embeddings": "Embedding"}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
often = settings(
    max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def drawn(schema):
    """Values as a schema of the document has them; numbers are often small."""
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    if "anyOf" in schema:
        return st.one_of([drawn(choice) for choice in schema["anyOf"]])
    low, high = schema.get("minimum"), schema.get("maximum")
    kinds = {
        "null": lambda: st.none(),
        "boolean": lambda: st.booleans(),
        "integer": lambda: st.integers(low, min(high or 60, 60)) | st.integers(low, high),
        "number": lambda: st.floats(low if low is not None else 0.01, high),
        "string": lambda: st.from_regex(schema["pattern"]) if "pattern" in schema else st.text(min_size=1, max_size=8),
        "array": lambda: st.lists(drawn(schema["items"]), min_size=schema.get("minItems", 0), max_size=4),
        "object": lambda: some(schema.get("properties", {}), schema.get("required", [])),
    }
    return kinds[schema["type"]]()


def some(properties, required):
    """Objects with what they must have and at most three other fields: many more rarely go together."""
    others = [name for name in properties if name not in required]
    chosen = st.lists(st.sampled_from(others), max_size=3, unique=True) if others else st.just([])
    return chosen.flatmap(
        lambda names: st.fixed_dictionaries({name: drawn(properties[name]) for name in (*required, *names)})
    )


@pytest.fixture(scope="module")
def server():
    with served(Scripted(slots=4, queue=600), embeddings=Embeddings("vectors", len)) as live:
        yield live
        wait_until(lambda: live.engine.figures()["running"] == live.engine.figures()["queued"] == 0)


@pytest.fixture(scope="module")
def bodies(server):
    """For each address: valid bodies, as the document has them."""
    described = json.loads(get(server, "/openapi.json")[2])["components"]["schemas"]
    models = st.sampled_from(["scripted", "team/adapter", "vectors"])
    plain = st.sampled_from([{}, {"messages": [{"role": "user", "content": "hi"}]}])
    bodies = {
        path: st.builds(lambda body, name: body | {"model": name}, drawn(described[POSTS[path]]), models)
        for path in POSTS
    }
    chat = "/v1/chat/completions"
    return bodies | {chat: st.builds(lambda body, more: body | more, bodies[chat], plain)}


def send(server, path, raw):
    """The status; what came is of the promised form."""
    status, headers, told = post(server, path, raw)
    assert status < 500, (path, raw, told)
    if headers["Content-Type"].startswith("text/event-stream"):
        assert told.endswith(b"data: [DONE]\n\n")
    elif status == 200:
        assert json.loads(told)["object"] in ("text_completion", "chat.completion", "list")
    else:
        assert set(json.loads(told)["error"]) == {"message", "type", "param", "code"}
    return status


@pytest.mark.parametrize("path", POSTS)
def test_valid_bodies(server, bodies, path):
    seen = Counter()

    @often
    @given(bodies[path])
    def run(body):
        seen[send(server, path, json.dumps(body).encode())] += 1

    run()
    assert seen[200]


@pytest.mark.parametrize("path", POSTS)
def test_spoilt_bodies(server, bodies, path):
    @often
    @given(bodies[path], st.data(), ANYTHING)
    def run(body, data, value):
        name = data.draw(st.sampled_from(sorted(body)) | st.text(max_size=5))
        send(server, path, json.dumps(body | {name: value}).encode())

    run()


@pytest.mark.parametrize("path", POSTS)
def test_bytes(server, path):
    @often
    @given(st.binary() | ANYTHING.map(lambda value: json.dumps(value).encode()))
    def run(raw):
        assert send(server, path, raw) == 400

    run()


def test_addresses(server):
    @often
    @given(st.text(max_size=20), st.sampled_from(["/", "/v1/", "/v1/models/", "/openapi.json"]))
    def run(tail, head):
        status, _, raw = get(server, head + "".join(f"%{byte:02x}" for byte in tail.encode()))
        assert status in (200, 404, 405), raw

    run()
