"""What an encoder is for: sentiment, entailment and the names in Python source, from a base and from scratch.

    python -m experiments.encoder_tasks --config=configs/encoder_tasks.py --workdir=runs/encoder_tasks

A cell is (task, start, seed): one JSON file in the folder. Started again, only what is missing is done. Beside them
stand the commonest label and a method that counts: naive Bayes of words, or a token's commonest tag between its
neighbours.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

# Also as `python experiments/encoder_tasks.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, data_folder, names, picked, spread, sweep
from experiments.labelled import batches_of, read_task, read_texts
from experiments.trial import linear_decay, train
from research.core import compilation, tree
from research.data import load_tokenizer, python_docs
from research.data.syntax_tags import LABELS, piece_labels, spans
from research.evaluation import naive_bayes, tag_by_neighbours
from research.evaluation.tagging import entity_f1
from research.interop import load_pretrained
from research.models import Model, build
from research.recipes.classify import accuracy, classification_loss
from research.report import bars, print_table, save

Rows = list[tuple[list[int], list[int], Any]]  # token ids, token types, a label or one per token


class Task(NamedTuple):
    """Encoded rows, and what the methods without a model say about the development rows."""

    train: Rows
    dev: Rows
    head: str
    n_labels: int
    without: Mapping[str, list[Any]]


def sentences(name: str, root: Path, tokenizer: Any, config: Mapping[str, Any]) -> Task:
    """SST-2 or RTE."""
    sizes = (config["tasks"][name]["rows"], config["dev_rows"])
    read = read_texts(name, root, *sizes)
    rows = read_task(name, root, tokenizer, max(config["lengths"]), *sizes)
    plain = {side: [" ".join(texts) for texts, _ in found] for side, found in read.items()}
    labels = [label for _, label in read["train"]]
    without = {
        "commonest label": [statistics.mode(labels)] * len(plain["dev"]),
        "naive Bayes": naive_bayes(plain["train"], labels, plain["dev"]),
    }
    return Task(rows["train"], rows["dev"], "sequence", 2, without)


def syntax(tokenizer: Any, config: Mapping[str, Any]) -> Task:
    """Names in the standard library's source, tagged by its parser; files are on the side where the bases had them."""
    length, wanted = max(config["lengths"]), (config["tasks"]["syntax"]["rows"], config["dev_rows"])
    found = [*python_docs.corpus(), *python_docs.sources(tests=False)]
    sides: list[Rows] = []
    for files, count in zip(python_docs.split(found, 0.02), wanted, strict=True):
        code = [file.text for file in files if file.name.startswith("source:")]
        rows = [row for text in code for row in tagged(text, tokenizer, length)]
        sides.append(rows[:: max(1, len(rows) // count)][:count] if count else rows)
    ids, labels = [[row[0] for row in sides[0]], [row[2] for row in sides[0]]]
    without = {
        "commonest label": [[0] * len(row[2]) for row in sides[1]],
        "counts of neighbours": tag_by_neighbours(ids, labels, [row[0] for row in sides[1]]),
    }
    return Task(*sides, "token", len(LABELS), without)


def tagged(source: str, tokenizer: Any, length: int) -> Rows:
    """The pieces of a file and their labels in rows of at most `length`; a file that is no Python gives none."""
    try:
        named = spans(source)
    except ValueError:
        return []
    ids, offsets = tokenizer.encode_with_offsets(source)
    labels = piece_labels(named, offsets)
    return [
        (ids[i : i + length], [0] * len(ids[i : i + length]), labels[i : i + length])
        for i in range(0, len(ids), length)
    ]


def score(task: Task, predicted: Sequence[Any]) -> dict[str, float]:
    """Accuracy over rows or tokens; entity F1 of tokens."""
    right = [row[2] for row in task.dev]
    if task.head == "sequence":
        return {"accuracy": float(np.mean([p == r for p, r in zip(predicted, right, strict=True)]))}
    pairs = [p == r for mine, own in zip(predicted, right, strict=True) for p, r in zip(mine, own, strict=True)]
    spoken = [[[LABELS[i] for i in row] for row in side] for side in (predicted, right)]
    return {"accuracy": float(np.mean(pairs)), "entity F1": entity_f1(*spoken).f1}


def run_cell(config: Mapping[str, Any], task: Task, epochs: int, model: Model, body: Any, seed: int) -> dict[str, Any]:
    """Trains all weights, from the base's body (None: fresh ones), and scores the development rows."""
    key, rng = jax.random.key(seed), np.random.default_rng(seed)
    fresh = jax.jit(model.init)(jax.random.fold_in(key, 0))
    params = fresh if body is None else {**body, "head": fresh["head"]}
    settings = {**config, "n_labels": task.n_labels}
    batches = [b for _ in range(epochs) for b in batches_of(task.train, settings, [], rng)]
    rule = linear_decay(config["learning_rate"], len(batches), clip=1.0)
    loss, key = classification_loss(model), jax.random.fold_in(key, 2)
    trained, costs = train(loss, params, rule, batches, key, policy=model.policy)
    dev = batches_of(task.dev, settings, [], None)
    _, predicted = accuracy(model, trained, dev)
    return {**score(task, in_order(task, predicted, dev)), **costs}


def in_order(task: Task, predicted: Sequence[np.ndarray], batches: Sequence[Mapping[str, np.ndarray]]) -> list[Any]:
    """Predictions of batches that were sorted by length, row by row as the task has them."""
    order = sorted(range(len(task.dev)), key=lambda i: -len(task.dev[i][0]))
    flat = [row for labels, batch in zip(predicted, batches, strict=True) for row in np.asarray(labels)]
    out: list[Any] = [None] * len(task.dev)
    for i, row in zip(order, flat, strict=False):  # empty rows fill the last batch
        out[i] = int(row) if task.head == "sequence" else row[: len(task.dev[i][0])].tolist()
    return out


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the table and draws the figure."""
    compilation.use_cache()
    if unknown := sorted({*config["starts"], *config["tasks"]} - {"base", "scratch", "sst2", "rte", "syntax"}):
        raise ValueError(f"unknown {unknown}; tasks are ['rte', 'sst2', 'syntax'], starts ['base', 'scratch']")
    root = data_folder(config["data"]) if set(config["tasks"]) - {"syntax"} else Path()
    described, body, _ = load_pretrained(config["base"], head="none")
    tokenizer = load_tokenizer(config["base"])
    common = {k: v for k, v in config.items() if k not in ("tasks", "starts", "seeds", "data", "base")}
    common["origin"] = tree.fingerprint(body)
    grid, tasks = [], {}
    for name, chosen in config["tasks"].items():
        task = syntax(tokenizer, config) if name == "syntax" else sentences(name, root, tokenizer, config)
        tasks[name] = task
        shape = {"head": task.head, "n_labels": task.n_labels, "pooling": "first", "head_dense": False}
        model = build(described.replace(**shape), policy=config["policy"], unroll=True)
        grid += [
            Cell(
                {"task": name, "start": start, "seed": seed},
                {**common, **chosen},
                partial(run_cell, config, task, chosen["epochs"], model, body if start == "base" else None, seed),
            )
            for seed in config["seeds"]
            for start in config["starts"]
        ]
    report(sweep(grid, workdir, console), tasks, workdir, console)


def report(results: list[dict[str, Any]], tasks: Mapping[str, Task], workdir: Path, console: Console) -> None:
    """Scores beside those of methods without a model, as a table and as bars."""
    groups: dict[str, dict[str, Any]] = {}
    rows = []
    for name, task in tasks.items():
        without = {method: score(task, said) for method, said in task.without.items()}
        for metric in next(iter(without.values())):
            group: dict[str, Any] = {}
            for place, (method, found) in enumerate(without.items()):
                group[("commonest label", "counting")[place]] = found[metric]
                rows.append([name, metric, method, f"{found[metric]:.3f}"])
            for start in names(results, "start"):
                values = [r[metric] for r in picked(results, task=name, start=start)]
                group[start] = (min(values), statistics.mean(values), max(values))
                rows.append([name, metric, f"trained, {start}", spread(values)])
            groups[f"{name}\n{metric}"] = group
    seeds = len(names(results, "seed"))
    print_table(f"Development rows, {seeds} seeds", ["task", "metric", "method", "score"], rows, console=console)
    path = save(bars(groups, y_label="score; lowest and highest seed"), workdir / "encoder_tasks.png")
    console.print(f"The figure: [bold]{path}[/]", soft_wrap=True)


if __name__ == "__main__":
    command.run(work, config="configs/encoder_tasks.py", workdir="runs/encoder_tasks")
