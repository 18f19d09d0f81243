"""An engine's model behind the protocol of applications."""

import pytest

from research.apps.protocol import LanguageModel, Options
from research.apps.served import ServedModel
from tests.apps.server.scripted import Scripted


@pytest.fixture
def engine():
    scripted = Scripted({"a": "one two", "b": "three", "long": "word " * 300, "broken": "x" * 30}, faults=("broken",))
    yield scripted
    scripted.close()


def test_many_prompts_at_once_and_a_stream(engine):
    model = ServedModel(engine, "scripted")
    assert isinstance(model, LanguageModel) and model.count("abc") == 3
    replies = model.write(["a", "b"], Options(stop=(" ",), logprobs=True, seed=7))
    assert [r.text for r in replies] == ["one", "three"] and replies[1].finish == "stop"
    assert replies[1].usage == (1, 5) and "".join(t.text for t in replies[1].tokens) == "three"
    assert [ask.seed for ask in engine.asked] == [7, 8]
    assert model.write(["b"], Options(max_new_tokens=2))[0].finish == "length"
    assert "".join(model.stream("a")) == "one two"


def test_who_stops_listening_frees_the_slot_and_faults_are_told(engine):
    model = ServedModel(engine, "scripted")
    pieces = model.stream("long")
    next(pieces)
    pieces.close()
    assert len(engine.cancelled) == 1  # the first number
    with pytest.raises(ConnectionError, match="scripted: it broke"):
        model.write(["broken"])
    before = len(engine.cancelled)
    engine.pause = 0.2
    with pytest.raises(ConnectionError, match="requests are waiting already"):
        model.write(["long"] * 40)
    assert len(engine.cancelled) > before
    with pytest.raises(ValueError, match="has no model 'other'"):
        ServedModel(engine, "other")


def test_a_silent_engine_is_told(engine):
    engine.pause = 0.5
    with pytest.raises(ConnectionError, match=r"silent for 0.01 s"):
        ServedModel(engine, "scripted", seconds=0.01).write(["long"])
