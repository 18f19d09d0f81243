"""Puts benchmarks to models: likelihoods of choices or written answers, with examples in front, stored as they come.

    python -m experiments.evaluate --config=configs/evaluate.py --workdir=runs/evaluate
    python -m experiments.evaluate --config=configs/evaluate.py --config.tasks="('mmlu',)" --config.shots="(0, 5)"

Each model, task and number of examples has a file of JSON lines with every prompt, raw answer, extracted answer and
score. Started again after a kill, only what is missing is asked; a file made with other settings is refused.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

# Also as `python experiments/evaluate.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import data_folder
from experiments.loading import load
from research.apps import sandbox
from research.apps.prompting import Outcome, Task, shots
from research.core import compilation, tree
from research.core.names import meant
from research.decoding import Sampling
from research.evaluation import ask, benchmarks
from research.evaluation.ask import Asked
from research.evaluation.benchmarks import humaneval
from research.evaluation.benchmarks.own_files import read_task
from research.evaluation.journal import Journal
from research.evaluation.judge import Address
from research.evaluation.paired import paired_bootstrap
from research.report import print_table
from research.report.terminal import Steps

STORIES = {"name": "stories260K", "folder": "stories260K/checkpoint_v1.bin"}
OWN = {"name", "file", "template", "choices", "pool", "metrics", "max_new_tokens"}
LOCAL, SERVED = {"name", "folder", "tokenizer"}, {"name", "url", "model", "key_variable"}


@dataclass(frozen=True)
class Cell:
    """One model on one task with k examples in every prompt.

    Attributes:
      prompts: in the order of the task's items. settings: all that decides the answers.
    """

    task: Task
    k: int
    prompts: tuple[shots.Prompt, ...]
    settings: Mapping[str, Any]
    path: Path


@dataclass(frozen=True)
class Result:
    """The outcomes of a cell, in the order of the items."""

    model: str
    cell: Cell
    outcomes: tuple[Outcome, ...]


class Local:
    """A model on this machine."""

    def __init__(self, given: Mapping[str, Any], config: Mapping[str, Any]):
        loaded = load(given["folder"], given.get("tokenizer"), config["precision"])
        self.parts = (loaded.model, loaded.params, loaded.tokenizer)
        sampling = Sampling(temperature=config["temperature"], suppress=loaded.unspoken, **loaded.forced)
        common = {"long": config["long"], "batch_size": config["batch_size"]}
        self.choose = partial(ask.choose, *self.parts, **common)
        write = {"sampling": sampling, "stop_tokens": loaded.stops, "key": config["seed"]}
        self.write = partial(ask.write, *self.parts, **common, **write)
        self.made_of = {"weights": tree.fingerprint(loaded.params), "precision": config["precision"]}

    def prompt(self, task: Task, index: int, examples: Sequence[Any], long: str) -> shots.Prompt:
        count, window = ask.count(*self.parts)
        try:
            return shots.build(task, task.items[index], examples, count=count, window=window)
        except ValueError:
            if long == "error":
                raise
            # Not even the question fits: `ask` cuts it.
            return replace(shots.build(replace(task, preamble=""), task.items[index], ()), dropped=len(examples))

    def too_long(self, task: Task) -> str:
        """Which answer is longer than the window, so that no cut of its question makes room; empty where none is."""
        count, window = ask.count(*self.parts)
        for item in task.items:
            needed = max(map(count, item.choices), default=0)
            if needed > window:
                return f"item {item.id!r} has an answer of {needed} tokens, the model holds {window}"
        return ""


class Served:
    """A model behind an address; it writes, its likelihoods are not to be had."""

    def __init__(self, given: Mapping[str, Any], config: Mapping[str, Any]):
        reach = {"url": given["url"], "model": given["model"], "temperature": config["temperature"]}
        self.address = Address(**reach, key_variable=given.get("key_variable", ""))
        self.made_of = reach

    def choose(self, task: Task, asked: Sequence[Asked]) -> list[Outcome]:
        raise ValueError(f"{task.name} compares choices by their likelihood, which a served model does not give")

    def write(self, task: Task, asked: Sequence[Asked]) -> list[Outcome]:
        return ask.write_by(replace(self.address, max_tokens=task.max_new_tokens), task, asked)

    def prompt(self, task: Task, index: int, examples: Sequence[Any], long: str) -> shots.Prompt:
        return shots.build(task, task.items[index], examples)

    def too_long(self, task: Task) -> str:
        return ""  # its window is not known


def read_models(config: Mapping[str, Any], data: Path) -> list[Mapping[str, Any]]:
    """The models of the config, checked.

    Raises:
      ValueError: a field that is missing or unknown, or two models of one name.
    """
    models = list(config["models"]) or [STORIES | {"folder": str(data / STORIES["folder"])}]
    for given in models:
        known = SERVED if "url" in given else LOCAL
        needed = {"name", "url", "model"} if "url" in given else {"name", "folder"}
        if needed - set(given) or set(given) - known:
            raise ValueError(f"a model is {sorted(LOCAL)} or {sorted(SERVED)}; got {dict(given)}")
    listed = [given["name"] for given in models]
    if len(set(listed)) != len(listed):
        raise ValueError(f"models need names of their own; got {listed}")
    return models


def read_tasks(config: Mapping[str, Any], data: Path) -> list[Task]:
    """The tasks with the questions that are asked.

    Raises:
      ValueError: an unknown task, a file of yours without a template, or an unknown level of the sandbox.
      NoSandboxError: a task whose answers are programs, on a machine that gives no such sandbox.
    """
    tasks = [task for given in config["tasks"] for task in _loaded(given, data)]
    if not tasks or not config["shots"]:
        raise ValueError("nothing to ask: name at least one task and one number of shots")
    for task in tasks:
        if writes_programs(task):
            sandbox.require(config["sandbox"])
    return [replace(task, items=drawn(task, config["limit"], config["seed"])) for task in tasks]


def writes_programs(task: Task) -> bool:
    """Whether the answers are programs, which are right if they run."""
    return any(metric.startswith("pass@") for metric in task.metrics)


def _loaded(given: str | Mapping[str, Any], data: Path) -> Sequence[Task]:
    if isinstance(given, str):
        return benchmarks.load(given, data)
    if not {"file", "template"} <= set(given) <= OWN:
        raise ValueError(f"a task of your own is {sorted(OWN)}, at least file and template; got {dict(given)}")
    how = {name: value for name, value in given.items() if name not in ("file", "template")}
    return [read_task(given["file"], given["template"], **how)]


def drawn(task: Task, limit: int, seed: int) -> list[Any]:
    """`limit` of a task's items (0: all) in their order; more items with a larger limit, the others stay."""
    if limit < 0:
        raise ValueError(f"limit is a number of questions, 0 for all; given {limit}")
    if not limit:
        return list(task.items)
    chosen = np.random.default_rng(seed).permutation(len(task.items))[:limit]
    return [task.items[i] for i in sorted(chosen)]


def plan(
    model: Local | Served, name: str, tasks: Sequence[Task], config: Mapping[str, Any], workdir: Path, console: Console
) -> list[Cell]:
    """All cells of a model with their prompts, made before anything is asked; without tasks that it cannot hold.

    Raises:
      ValueError: no cell is left; with long="error", a question that does not fit.
    """
    cells = []
    for task in tasks:
        if reason := model.too_long(task):
            console.print(f"{task.name} is left out for {name}: {reason}", markup=False, soft_wrap=True)
            continue
        for k in config["shots"]:
            if task.preamble and k:
                console.print(f"{task.name} has published examples: no others are drawn, k = {k} is left out")
                continue
            found = []
            for i, item in enumerate(task.items):
                examples = shots.choose(task, item, k, seed=config["seed"], how=config["order"])
                found.append(model.prompt(task, i, examples, config["long"]))
            told = {f.name: getattr(task, f.name) for f in fields(Task) if f.name not in ("items", "pool")}
            asked = [(item.id, item.choices, p.text) for item, p in zip(task.items, found, strict=True)]
            content = hashlib.sha256(json.dumps([told, asked], sort_keys=True).encode()).hexdigest()
            settings = {name: config[name] for name in ("order", "seed", "limit", "long", "temperature")}
            settings = {"task": task.name, "shots": k, **settings, **model.made_of, "prompts": content}
            file = f"{name}-{task.name}-{k}".replace("/", "_")
            cells.append(Cell(task, k, tuple(found), settings, workdir / "answers" / f"{file}.jsonl"))
    if not cells:
        raise ValueError(f"nothing is left to ask {name} of {[task.name for task in tasks]}: the lines above say why")
    return cells


def run_cell(model: Local | Served, name: str, cell: Cell, config: Mapping[str, Any], console: Console) -> Result:
    """Asks what the cell's file does not hold yet."""
    journal = Journal(cell.path, cell.settings)
    task, items = cell.task, cell.task.items
    place = {item.id: i for i, item in enumerate(items)}
    left = [Asked(item, p.text) for item, p in zip(items, cell.prompts, strict=True) if item.id not in journal.rows]
    put = model.choose if items[0].choices else model.write
    title = f"{name} {task.name} {cell.k}"
    with Steps(title, len(items), unit="questions", already=len(items) - len(left), console=console) as bar:
        for some in ask.portions(left, config["portion"]):
            outcomes = put(task, some)
            if writes_programs(task):
                outcomes = humaneval.run_programs(task, outcomes, partial(humaneval.passes, level=config["sandbox"]))
            journal.add(row(one, cell.prompts[place[one.item.id]], o) for one, o in zip(some, outcomes, strict=True))
            bar.advance(len(some))
    rows = [journal.rows[item.id] for item in items]
    outcomes = tuple(Outcome(r["key"], r["prediction"], r["text"], tuple(r["scores"])) for r in rows)
    return Result(name, cell, outcomes)


def row(one: Asked, prompt: shots.Prompt, outcome: Outcome) -> dict[str, Any]:
    """What is stored of a question."""
    return {
        "key": one.item.id,
        "prompt": one.prompt,
        "examples": prompt.used,
        "choices": one.item.choices,
        "gold": one.item.gold,
        "answers": one.item.answers,
        "text": outcome.text,
        "prediction": outcome.prediction,
        "scores": outcome.scores,
    }


def report(results: Sequence[Result], config: Mapping[str, Any], workdir: Path, console: Console) -> None:
    """Every metric with its interval, and for several models whether the difference of the first one is chance."""
    lines: dict[str, list[list[Any]]] = {}
    kept = []
    for result in results:
        task, used = result.cell.task, [p.used for p in result.cell.prompts]
        unread, fit = sum(o.prediction is None for o in result.outcomes), float(np.mean(used))
        for metric, value in benchmarks.scored(task, result.outcomes, samples=config["samples"]).items():
            at = {"task": task.name, "shots": result.cell.k, "metric": metric}
            counts = {"n": len(used), "unread": unread, "examples": fit}
            kept.append({"model": result.model, **at, **value._asdict(), **counts})
            lines.setdefault(result.model, []).append([*at.values(), str(value), len(used), unread, f"{fit:.1f}"])
    header = ["task", "shots", "metric", "value [95 %]", "n", "unread", "fit"]
    for model, rows in lines.items():
        print_table(f"{model} (fit: examples that found room, on average)", header, rows, console=console)
    tests = compared(results, config["samples"])
    if tests:
        header = ["task", "shots", "metric", "first", "second", "first − second [95 %]", "p"]
        print_table("Paired bootstrap", header, [list(test.values()) for test in tests], console=console)
    (workdir / "results.json").write_text(json.dumps({"scores": kept, "tests": tests}, indent=1) + "\n")
    console.print(f"Prompts and answers: [bold]{workdir / 'answers'}[/]", soft_wrap=True, highlight=False)


def compared(results: Sequence[Result], samples: int) -> list[dict[str, Any]]:
    """The first metric of every two models on the same questions."""
    tests = []
    for a, b in combinations(results, 2):
        if (a.cell.task.name, a.cell.k) != (b.cell.task.name, b.cell.k):
            continue
        name = a.cell.task.metrics[0]
        metric = benchmarks.METRICS[name]
        rows = [metric.rows(r.cell.task, r.outcomes) for r in (a, b)]
        found = paired_bootstrap(*rows, statistic=metric.statistic, samples=samples)
        at = {"task": a.cell.task.name, "shots": a.cell.k, "metric": name, "first": a.model, "second": b.model}
        tests.append({**at, "difference": str(found.difference), "p": found.p})
    return tests


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Asks every model everything and prints the tables."""
    compilation.use_cache()
    if config["order"] not in shots.ORDERS:
        raise ValueError(
            f"unknown order {config['order']!r}{meant(config['order'], shots.ORDERS)}; have {shots.ORDERS}"
        )
    data = data_folder(config["data"])
    models, tasks = read_models(config, data), read_tasks(config, data)
    results = []
    for given in models:
        model = Served(given, config) if "url" in given else Local(given, config)
        cells = plan(model, given["name"], tasks, config, workdir, console)
        results += [run_cell(model, given["name"], cell, config, console) for cell in cells]
    report(results, config, workdir, console)


if __name__ == "__main__":
    command.run(work, config="configs/evaluate.py", workdir="runs/evaluate")
