"""Asks a model with tools a question, shows every step, and keeps the run as a JSON line in the workdir's traces.jsonl.

python -m experiments.agent --config=configs/agent.py --config.question="..." --config.model=FOLDER
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

# Also as `python experiments/agent.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import data_folder
from experiments.loading import language_model
from research.apps import pal, react, reasoning
from research.apps.arithmetic import calculator
from research.apps.calling import converse
from research.apps.protocol import LanguageModel, Options
from research.apps.retrieval import files
from research.apps.retrieval.bm25 import BM25
from research.apps.retrieval.chunks import Chunker
from research.apps.retrieval.document import Document
from research.apps.retrieval.store import Hit
from research.apps.standard_tools import python_tool, search_tool
from research.apps.tools import Tool, Tools, tool
from research.apps.trace import Budget, Trace, append_traces
from research.apps.wiki import Wiki
from research.core import compilation
from research.core.names import meant

MODES = ("react", "chat", "cot", "pal")
TOOLS = ("calculator", "python", "search", "wiki")


def by_words(documents: list[Document]) -> Tool:
    """A search in a folder that needs no index: BM25 over its chunks."""
    cut = Chunker()
    chunks = [chunk for document in documents for chunk in cut(document)]
    bm25 = BM25([chunk.passage for chunk in chunks])

    def retrieve(query: str, k: int) -> list[Hit]:
        scores = bm25.scores(query)
        return [Hit(chunks[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:k] if scores[i] > 0]

    return search_tool(retrieve)


def tools_of(config: Mapping[str, Any]) -> Tools:
    """The config's tools."""
    unknown = [name for name in config["tools"] if name not in TOOLS]
    if unknown:
        raise ValueError(f"unknown tool {unknown[0]!r}{meant(unknown[0], TOOLS)}; have {list(TOOLS)}")
    needing = {"search", "wiki"} & set(config["tools"])
    if bool(needing) != bool(config["documents"]):
        raise ValueError("search and wiki read --config.documents, and only they do: give both, or neither")
    documents = [found.read() for found in files.folder(config["documents"])] if needing else []
    made: list[Tool] = []
    for name in config["tools"]:
        if name == "wiki":
            made += Wiki({document.title: document.text for document in documents}).tools()
        elif name == "search":
            made.append(by_words(documents))
        else:
            made.append(tool(calculator) if name == "calculator" else python_tool(config["isolation"]))
    return Tools(made)


def head_of(given: str) -> str:
    """What stands in front of the question: a file's text, or FILE.json#KEY as ReAct's prompts are published."""
    path, _, key = given.partition("#")
    text = Path(path).read_text(encoding="utf-8") if path else ""
    if not key:
        return text
    prompts = json.loads(text)
    if key not in prompts:
        raise ValueError(f"{path} has no prompt {key!r}{meant(key, prompts)}; has {sorted(prompts)}")
    return prompts[key]


def show(console: Console, name: str, text: str, style: str = "") -> None:
    console.print(f"[bold]{name}[/]", end=" ")
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def acted(config: Mapping[str, Any], model: LanguageModel, console: Console) -> Trace:
    """A run of ReAct or of function calling, shown as it goes."""
    shown = 0

    def on_step(trace: Trace) -> None:
        nonlocal shown
        for number, step in enumerate(trace.steps[shown:], shown + 1):
            show(console, f"Thought {number}:", step.thought)
            if step.action or step.observation:
                action = f"{step.action}[{step.argument}]" if step.action else step.argument
                show(console, f"Action {number}:", action, "cyan")
            if step.observation:
                show(console, f"Observation {number}:", step.observation, "green")
            for note in step.notes:
                show(console, "  note:", note, "yellow")
        shown = len(trace.steps)

    budget = Budget(**config["budget"])
    common: dict[str, Any] = {"budget": budget, "options": options(config, budget.step_tokens), "on_step": on_step}
    if config["mode"] == "chat":
        trace, _ = converse(model, tools_of(config), [{"role": "user", "content": config["question"]}], **common)
        return trace
    head = head_of(config["head"])
    return react.run(model, tools_of(config), config["question"], head=head, lead=config["lead"], **common)


def options(config: Mapping[str, Any], tokens: int) -> Options:
    return Options(tokens, config["temperature"], seed=config["seed"])


def thought(config: Mapping[str, Any], model: LanguageModel, console: Console) -> str | None:
    """The answer by chain of thought or by programs; of several samples, the vote."""
    told, samples, question = options(config, config["budget"]["step_tokens"]), config["samples"], config["question"]
    if config["mode"] == "pal":
        (solution,) = pal.solve(model, [question], samples=samples, options=told, level=config["isolation"])
        for one in solution.executed:
            show(console, "Program:", one.program, "cyan")
            show(console, "Value:", one.error if one.value is None else one.value, "green")
        vote = solution.vote
    else:
        prompts = [question] * samples
        chains = reasoning.zero_shot(model, prompts, options=told)
        for chain in chains:
            show(console, chain.prompt, chain.text, "cyan")
        vote = reasoning.vote([chain.answer for chain in chains])
    if samples > 1:
        show(console, "Agreement:", f"{vote.agreement:.2f} of {samples}")
    return vote.answer


def check(config: Mapping[str, Any]) -> None:
    """Refuses settings that cannot be, and those that the mode would not read."""
    mode, lead = config["mode"], config["lead"] != "Question"
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}{meant(mode, MODES)}; have {list(MODES)}")
    wrong = [
        (not config["question"], 'nothing was asked: give --config.question="..."'),
        (mode != "react" and bool(config["head"] or lead), "head and lead are read by mode=react alone"),
        (mode in ("cot", "pal") and bool(config["documents"]), "documents are read by mode=react and mode=chat alone"),
        (mode in ("react", "chat") and config["samples"] > 1, "samples are drawn by mode=cot and mode=pal alone"),
        (config["samples"] > 1 and config["temperature"] == 0, "several samples need a temperature above 0"),
        (config["seed"] != 0 and config["temperature"] == 0, "a seed acts only where the temperature is above 0"),
    ]
    for given, reason in wrong:
        if given:
            raise ValueError(reason)


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Asks the question in the config's mode."""
    compilation.use_cache()
    check(config)
    path = config["model"] or str(data_folder(config["data"]) / "stories260K" / "checkpoint_v1.bin")
    model = language_model(path, config["tokenizer"], config["precision"], config["name"], config["key_variable"])
    if config["mode"] in ("cot", "pal"):
        answer = thought(config, model, console)
    else:
        trace = acted(config, model, console)
        append_traces(workdir / "traces.jsonl", [trace])
        answer = trace.answer
        show(console, "Ended by", f"{trace.ended}, after {len(trace.steps)} steps and {trace.tokens} tokens")
    show(console, "Answer:", "none" if answer is None else answer, "bold")


if __name__ == "__main__":
    command.run(work, config="configs/agent.py", workdir="runs/agent")
