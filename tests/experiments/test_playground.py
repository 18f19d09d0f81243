"""The page's command: what its config puts on the page, and what it refuses before a model is read."""

import io
import json

import pytest
from rich.console import Console

from configs.playground import get_config
from experiments import playground
from tests.apps.server.scripted import Scripted

SAMPLE = {"id": "a", "prompt": "Say hello.", "completions": ["hello", "go away"]}


@pytest.fixture
def folder(tmp_path):
    """A folder as the main job leaves it, with labels and settings alone."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "samples.jsonl").write_text(json.dumps(SAMPLE) + "\n")
    (tmp_path / "settings.json").write_text(json.dumps({"answers": {"k": 2}}))
    return tmp_path


def test_what_a_folder_holds_is_on_the_page(folder):
    config = get_config(str(folder))
    assert (config.answers.k, config.answers.new_tokens, config.documents) == (2, 64, "")
    services = playground.Page(config.to_dict(), folder).services(Scripted())
    services.board.rank("ann", "a", [1, 2])
    assert services.ask is None and services.runs is None and services.board.labellers() == ["ann"]
    assert services.agreement({("a", 0, 1): {"ann": 1, "ben": 1}}, ["ann", "ben"])["of one mind"] == 1
    trace = services.act("What is 2 + 2?")
    (kept,) = (services.traces / "page.jsonl").read_text().splitlines()
    assert {name: json.loads(kept)[name] for name in trace} == json.loads(json.dumps(trace))
    assert trace["question"] == "What is 2 + 2?" and trace["ended"] != "finish"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"labels": "nowhere"}, "nowhere"),
        ({"documents": "nowhere"}, "nowhere holds no index; make one with"),
        ({"runs": "nowhere"}, "no folder nowhere with training runs"),
        ({"model": ""}, "name a model"),
    ],
)
def test_refusals(tmp_path, settings, told):
    config = get_config().to_dict() | {"model": "a model"} | settings
    with pytest.raises((ValueError, OSError), match=told):
        playground.work(config, tmp_path, Console(file=io.StringIO()))


def test_a_folder_without_any_part(tmp_path):
    with pytest.raises(ValueError, match="holds none of"):
        get_config(str(tmp_path))
