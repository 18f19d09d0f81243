"""The page: one server with a playground, labelling, documents, agents and runs; see configs/playground.py."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import command, indexed, serving
from experiments.loading import language_model
from research.apps import react
from research.apps.arithmetic import calculator
from research.apps.labelling import Board
from research.apps.protocol import LanguageModel, Options
from research.apps.retrieval.prompt import Answer, answer
from research.apps.served import ServedModel
from research.apps.standard_tools import python_tool, search_tool
from research.apps.tools import Tools, tool
from research.apps.trace import Budget, append_traces
from research.core import compilation
from research.decoding.engine import Engine
from research.evaluation.agreement import of_votes


class Page:
    """What the config puts on the page; all of it is read before the served model, which is what takes longest.

    Raises:
      ValueError, OSError: a folder that is not there, or not of its kind.
    """

    def __init__(self, config: Mapping[str, Any], workdir: Path):
        self.config = config
        self.board = Board(config["labels"]) if config["labels"] else None
        self.find = indexed.retriever(Path(config["documents"])) if config["documents"] else None
        self.runs = _folder(config["runs"]) if config["runs"] else None
        self.traces = Path(config["traces"] or workdir / "traces")
        self.traces.mkdir(parents=True, exist_ok=True)
        self.budget = Budget(**config["agent"]["budget"])
        tools = [tool(calculator)] + ([search_tool(self.find)] if self.find else [])
        level = config["agent"]["isolation"]
        self.tools = Tools(tools + ([python_tool(level)] if level else []))
        self.reader: LanguageModel | None = None
        if config["reader"]:
            self.reader = language_model(config["reader"], "", config["precision"], "", "")

    def services(self, engine: Engine) -> Any:
        """The page's services; what they write is written by the server's own model where no reader is set."""
        from research.apps.page import Services

        served = ServedModel(engine, engine.models[0])
        settings = self.config["answers"]
        options = Options(settings["new_tokens"], stop=tuple(settings["stop"]))
        find, reader = self.find, self.reader or served

        def ask(question: str) -> Answer:
            assert find is not None
            return answer(question, find, reader, options, k=settings["k"], instruction=settings["instruction"])

        def act(task: str) -> Mapping[str, Any]:
            trace = react.run(served, self.tools, task, budget=self.budget)
            append_traces(self.traces / "page.jsonl", [trace])
            return asdict(trace)

        return Services(
            board=self.board,
            agreement=of_votes,
            ask=ask if find else None,
            act=act,
            traces=self.traces,
            runs=self.runs,
        )


def _folder(path: str) -> Path:
    if not Path(path).is_dir():
        raise ValueError(f"no folder {path} with training runs")
    return Path(path)


def work(config: dict[str, Any], workdir: Path, console: Console) -> int:
    """Reads what is to be shown, then serves it beside the model."""
    compilation.use_cache()
    serving.check(config)
    return serving.work(config, workdir, console, Page(config, workdir).services)


if __name__ == "__main__":
    command.run(work, config="configs/playground.py", workdir="runs/playground")
