"""The agent's command with scripted models: every mode, tools over documents, published heads, what it refuses."""

import io
import json

import pytest
from rich.console import Console

from configs import agent as settings
from experiments import agent
from research.apps import sandbox
from research.apps.calls import call
from research.apps.protocol import Reply, Usage
from research.apps.trace import read_traces
from tests.apps.scripted import Scripted


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """(answers, settings) -> what is shown, and the scripted model."""

    def run(answers, **given):
        model = Scripted(answers)
        monkeypatch.setattr(agent, "language_model", lambda *_: model)
        console = Console(file=io.StringIO(), width=200)
        config = settings.get_config().to_dict() | {"model": "m", "question": "2 + 3?"} | given
        agent.work(config, tmp_path, console)
        return console.file.getvalue(), model

    return run


def test_react_with_tools_over_documents(ask, tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "apples.md").write_text("# Apples\n\nApples are red. They grow on trees.\n", encoding="utf-8")
    (folder / "pears.md").write_text("# Pears\n\nPears are green.\n", encoding="utf-8")
    said = [
        " a\nAction 1: search[green]",
        " b\nAction 2: Search[apples]",
        " c\nAction 3: Lookup[trees]",
        " d\nAction 4: calculator[2 + 3]",
        " e\nAction 5: Finish[5]",
    ]
    tools = ("calculator", "search", "wiki")
    with pytest.raises(ValueError, match="two tools have the same name"):
        ask(said, tools=tools, documents=str(folder))
    shown, _ = ask([said[1], said[3], said[4]], tools=("calculator", "wiki"), documents=str(folder))
    assert "Apples are red." in shown and "Observation 2: 5" in shown and shown.rstrip().endswith("Answer: 5")
    shown, _ = ask([said[0], said[4]], tools=("search",), documents=str(folder))
    assert "Observation 1: [1] Pears" in shown and "Pears are green." in shown and "[2]" not in shown
    first, second = read_traces(tmp_path / "traces.jsonl")
    assert (first.answer, second.answer, second.ended) == ("5", "5", "finish")


def test_a_published_prompt_is_the_head(ask, data_dir):
    file = data_dir / "react" / "fever.json"
    given = {"head": f"{file}#webthink_simple3", "lead": "Claim", "question": "Ice is hot.", "tools": ("calculator",)}
    _, model = ask([" No.\nAction 1: Finish[REFUTES]"], **given)
    published = json.loads(file.read_text(encoding="utf-8"))["webthink_simple3"]
    assert model.asked[0][0] == f"{published}Claim: Ice is hot.\nThought 1:"
    with pytest.raises(ValueError, match="no prompt 'webthink_simple4', did you mean"):
        ask([], **given | {"head": f"{file}#webthink_simple4"})


def test_function_calls_thoughts_and_programs(ask):
    asked = Reply("", "tool_calls", Usage(1, 1), (), (call("calculator", '{"expression": "2 + 3"}', "c"),))
    shown, _ = ask([asked, "It is 5."], mode="chat", tools=("calculator",))
    assert "Observation 1: 5" in shown and shown.rstrip().endswith("Answer: It is 5.")
    shown, model = ask([" I add."] * 3 + [" 5.", " 6.", " 5."], mode="cot", samples=3, temperature=0.5, seed=4)
    assert "Agreement: 0.67 of 3" in shown and shown.rstrip().endswith("Answer: 5")
    assert {options.seed for _, options in model.asked} == {4}
    try:
        sandbox.run("", level="bubblewrap")
    except sandbox.NoSandboxError as reason:
        pytest.skip(str(reason))
    shown, _ = ask(["def solution():\n    return 2 + 3"], mode="pal")
    assert shown.rstrip().endswith("Answer: 5")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"question": ""}, "nothing was asked"),
        ({"mode": "raect"}, "unknown mode 'raect', did you mean 'react'"),
        ({"tools": ("calcluator",)}, "unknown tool 'calcluator', did you mean 'calculator'"),
        ({"tools": ("search",)}, "give both, or neither"),
        ({"documents": "x"}, "give both, or neither"),
        ({"mode": "cot", "documents": "x"}, "documents are read by"),
        ({"mode": "chat", "lead": "Claim"}, "head and lead are read by mode=react"),
        ({"samples": 3}, "samples are drawn by"),
        ({"mode": "cot", "samples": 3}, "temperature above 0"),
        ({"seed": 3}, "a seed acts only"),
        ({"budget": {"steps": 0}}, "at least 1"),
    ],
)
def test_what_it_refuses(ask, given, reason):
    with pytest.raises(ValueError, match=reason):
        ask([], **given)
