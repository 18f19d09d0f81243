"""Bad input of the server: each request gets the status and one line that says what was given; nothing else changes."""

import json
import re

import pytest
from rich.console import Console

from configs.serve import get_config
from experiments import serving
from research.apps.server import Limits, app
from tests.apps.server.conftest import ask, served
from tests.apps.server.scripted import Scripted

TEXT, CHAT, VECTORS = "/v1/completions", "/v1/chat/completions", "/v1/embeddings"
HI = {"role": "user", "content": "hi"}
JSON = {"Content-Type": "application/json"}


def text(**fields):
    return TEXT, json.dumps({"model": "scripted", "prompt": "x"} | fields)


def chat(*messages, **fields):
    return CHAT, json.dumps({"model": "scripted", "messages": messages or [HI]} | fields)


CASES = {
    "no JSON": ((TEXT, "{"), 400, "the body is not JSON: Expecting property name"),
    "nothing": ((TEXT, ""), 400, "the body is not JSON"),
    "invalid UTF-8": ((TEXT, b'{"model": "\xff"}'), 400, "not UTF-8: byte 11 is 0xff"),
    "UTF-16": ((TEXT, '{"model": "x"}'.encode("utf-16")), 400, "not UTF-8: byte 0"),
    "half of a surrogate pair": (text(prompt="\ud800"), 400, "half of a surrogate pair"),
    "no number": (text(temperature=float("nan")), 400, "NaN is no number"),
    "too many digits": ((TEXT, '{"seed": ' + "1" * 5000 + "}"), 400, "the body is not JSON"),
    "deep": ((TEXT, "[" * 100_000), 400, "nested too deeply"),
    "a list": ((TEXT, "[]"), 400, "must be a JSON object, given list"),
    "another kind of body": ((TEXT, "a=b", {"Content-Type": "text/plain"}), 415, "application/json, given text/plain"),
    "no kind of body": ((TEXT, "{}", {}), 415, "given no content-type"),
    "nothing there": (("/v1/completion", "{}"), 404, "'/v1/completion', did you mean '/v1/completions'"),
    "another method": (("/v1/models", "{}"), 405, "POST is not for '/v1/models'; it takes GET, HEAD|HEAD, GET"),
    "no model": ((TEXT, '{"prompt": "x"}'), 400, "'model' is a required property"),
    "unknown model": (text(model="scriptd"), 404, "unknown model 'scriptd'"),
    "unknown field": (text(temprature=1), 400, "'temprature' is not served, did you mean 'temperature'"),
    "best_of": (text(best_of=2), 400, "best_of is not served other than as 1"),
    "presence_penalty": (text(presence_penalty=0.1), 400, "presence_penalty is not served other than as 0"),
    "logit_bias": (text(logit_bias={"50256": -100}), 400, "logit_bias is not served other than as {}"),
    "suffix": (text(suffix="end"), 400, 'suffix is not served other than as ""'),
    "prompt of numbers and texts": (text(prompt=[1, "a"]), 400, "prompt must be a text, token ids, or a list"),
    "negative id": (text(prompt=[-1]), 400, "prompt must be"),
    "true as an id": (text(prompt=[True]), 400, "prompt must be"),
    "id beyond the vocabulary": (text(prompt=[500]), 400, "token ids lie in 0..127, given 500"),
    "empty list": (text(prompt=[]), 400, "prompt must be"),
    "too many prompts": (text(prompt=["x"] * 65), 400, "a list of 1 to 64 of either"),
    "too many answers": (text(prompt=["x"] * 9, n=8), 400, "72 answers are asked for; at most 64"),
    "n": (text(n=9), 400, "n: 9 is greater than the maximum of 8"),
    "temperature": (text(temperature=-1), 400, "temperature: -1 is less than the minimum of 0"),
    "temperature in words": (text(temperature="hot"), 400, "temperature: 'hot' is not of type 'number'"),
    "top_p": (text(top_p=0), 400, "top_p: 0 is less than or equal to the minimum of 0"),
    "seed": (text(seed=-1), 400, "seed: -1 is less than the minimum"),
    "empty stop": (text(stop=["a", ""]), 400, "stop must be a text or a list of at most 16 texts, none of them empty"),
    "max_tokens": (text(max_tokens=101), 400, "max_tokens: 101 is greater than the maximum of 100"),
    "over the window": (text(prompt="x" * 2000), 400, "a prompt of 2000 tokens and 16 new ones; window 2000"),
    "long quotation": (text(temperature="x" * 9000), 400, r"^temperature: .{290,320}$"),
    "stream_options alone": (text(stream_options={"include_usage": True}), 400, "stream_options needs stream=true"),
    "unknown stream option": (text(stream=True, stream_options={"a": 1}), 400, "stream_options: Additional prop"),
    "no messages": (chat(messages=[]), 400, "messages: .* should be non-empty"),
    "unknown role": (chat({"role": "bot", "content": ""}), 400, r"messages\[0\].role: 'bot' is not one of"),
    "no content": (chat({"role": "user"}), 400, r"messages\[0\] has no content"),
    "a picture": (chat({"role": "user", "content": [{"type": "image_url"}]}), 400, "content must be a text, or a list"),
    "a tool's answer to nothing": (chat({"role": "tool", "content": "1"}), 400, "needs tool_call_id"),
    "a user who calls": (
        chat(HI | {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}),
        400,
        "only the assistant calls tools",
    ),
    "two limits": (chat(max_tokens=3, max_completion_tokens=4), 400, "differ; give one"),
    "top_logprobs alone": (chat(top_logprobs=3), 400, "top_logprobs needs logprobs=true"),
    "tool_choice alone": (chat(tool_choice="auto"), 400, "tool_choice needs tools"),
    "a forced tool": (
        chat(tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="required"),
        400,
        'tool_choice must be "auto" or "none": nothing here can force',
    ),
    "JSON mode": (chat(response_format={"type": "json_object"}), 400, "response_format is not served other than as"),
    "no embedding model": ((VECTORS, '{"model": "scripted", "input": "x"}'), 404, "unknown model 'scripted'; have"),
    "dimensions": ((VECTORS, '{"model": "e", "input": "x", "dimensions": 2}'), 400, "'dimensions' is not served"),
}


@pytest.fixture(scope="module")
def server():
    with served(Scripted(), limits=Limits(max_tokens=100)) as live:
        yield live


@pytest.mark.parametrize("case", CASES)
def test_refused(server, case):
    (path, raw, *headers), status, message = CASES[case]
    found, _, answer = ask(server, "POST", path, raw if isinstance(raw, bytes) else raw.encode(), *headers or [JSON])
    told = json.loads(answer)
    assert found == status, told
    error = told["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    found = re.search(message, error["message"])
    assert found and "\n" not in error["message"], error["message"]
    assert not server.engine.asked


@pytest.mark.parametrize("key", ["", " ", " secret", "schlüssel", "a\nb"])
def test_a_key_that_cannot_be_sent(key):
    engine = Scripted()
    with pytest.raises(ValueError, match="an API key is ASCII text"):
        app(engine, key=key)
    engine.close()


@pytest.mark.parametrize("wrong", [{"n": 0}, {"body": -1}, {"seconds": 0}, {"max_tokens": -1}])
def test_limits_that_let_nothing_in(wrong):
    with pytest.raises(ValueError, match=f"limits \\['{next(iter(wrong))}'\\] are too small"):
        Limits(**wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "name a model: --config.model=folder"),
        ({"model": "x", "key_variable": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set; it is to hold the API key"),
        ({"model": "x", "limits": {"n": 0}}, "too small"),
        ({"model": "nowhere/at all", "port": 0}, "nowhere/at all"),
    ],
)
def test_a_command_that_cannot_serve(settings, message, tmp_path):
    with pytest.raises((ValueError, OSError), match=message):
        serving.work(get_config().to_dict() | settings, tmp_path, Console(quiet=True))


@pytest.mark.parametrize("pairs", [("french",), ("=folder",), ("french=",)])
def test_adapters_that_are_no_pairs(pairs):
    with pytest.raises(ValueError, match=r"adapters are pairs name=folder with different names, given \["):
        serving.adapters(pairs, None, None)
