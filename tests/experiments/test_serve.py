"""The command that serves: a real model in int8 with adapters, asked over HTTP, against offline decoding."""

import json

import jax
import pytest

from configs.serve import get_config
from experiments import serving
from experiments.loading import encode, load
from research.core import tree
from research.decoding import generate
from research.interop.peft import save_adapter
from research.weights import attach, quantize
from research.weights.wrapper import over_wrappers
from tests.apps.server.conftest import get, post, served

PROMPT = "Once upon a time"


def test_adapters_over_int8_are_served_as_offline(data_dir, tmp_path):
    checkpoint = data_dir / "stories260K" / "checkpoint_v1.bin"
    loaded = load(str(checkpoint), None, "f32")
    base = tree.stack(loaded.params)
    drawn = lambda node: type(node)(**vars(node) | {"b": 0.2 * jax.random.normal(jax.random.key(1), node.b.shape)})  # noqa: E731
    adapted = over_wrappers(drawn, attach(base, {"method": "lora", "rank": 2}, jax.random.key(0)))
    save_adapter(tmp_path / "odd", loaded.model.config, adapted)
    asked = {"model": str(checkpoint), "quantize": "int8", "adapters": (f"odd={tmp_path / 'odd'}",)}
    small = {"slots": 2, "window": 64, "chunk": 8}
    engine = serving.engine(get_config().to_dict() | asked | small, loaded, None)
    with served(engine) as server:
        assert [model["id"] for model in json.loads(get(server, "/v1/models")[2])["data"]] == [
            "checkpoint_v1.bin",
            "odd",
        ]
        texts = {}
        for name in engine.models:
            body = {"model": name, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
            status, _, raw = post(server, "/v1/completions", body)
            assert status == 200, raw
            texts[name] = json.loads(raw)["choices"][0]["text"]
        offline = serving.over(quantize(base, {"method": "int8"}), adapted)
        prompt = [encode(loaded, PROMPT)]
        out = generate(loaded.model, offline, prompt, max_new_tokens=12, tokenizer=loaded.tokenizer)
        assert texts["odd"] == out.texts[0] != texts["checkpoint_v1.bin"]
        assert post(server, "/v1/completions", {"model": "odd", "prompt": "x " * 100})[0] == 400


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("A_KEY", "secret")
    assert (serving.key_from("A_KEY"), serving.key_from("")) == ("secret", None)


def test_port_zero_is_a_free_port():
    with serving.listening("127.0.0.1", 0) as place:
        assert place.getsockname()[1] > 0
        with pytest.raises(OSError, match=f"cannot listen at 127.0.0.1:{place.getsockname()[1]}"):
            serving.listening(*place.getsockname())
