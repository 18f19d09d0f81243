"""Labelled sentences of local files, encoded and batched: what the classification experiments share."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.data.length_batches import bucket, length_batches
from research.data.virtual import prepend
from research.recipes.classify import labelled_batch

# name -> training file, development file, columns of text, labels
TASKS = {
    "sst2": ("sst2/train.20000.tsv", "sst2/dev.first436.tsv", ("sentence",), ("0", "1")),
    "rte": ("rte/train.tsv", "rte/dev.tsv", ("sentence1", "sentence2"), ("entailment", "not_entailment")),
}


def read_texts(name: str, root: Path, rows: int, dev_rows: int) -> dict[str, list[tuple[list[str], int]]]:
    """(texts, label) of the first training rows and of the development rows; 0 takes all.

    Raises:
      ValueError: an unknown task, or a row without one of its columns; names file and line.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; have {sorted(TASKS)}")
    train, dev, columns, labels = TASKS[name]
    out: dict[str, list[tuple[list[str], int]]] = {}
    for split, path, count in (("train", root / train, rows), ("dev", root / dev, dev_rows)):
        found = []
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE), start=2):
                if count and len(found) == count:
                    break
                if any(row.get(column) is None for column in (*columns, "label")) or row["label"] not in labels:
                    raise ValueError(f"{path}:{number}: expected columns {[*columns, 'label']} with labels {labels}")
                found.append(([row[c] for c in columns], labels.index(row["label"])))
        out[split] = found
    return out


def read_task(name: str, root: Path, tokenizer: Any, length: int, rows: int, dev_rows: int) -> dict[str, list]:
    """(ids, token types, label) of the rows that `read_texts` gives."""
    read = read_texts(name, root, rows, dev_rows)
    return {split: [(*_encode(t, tokenizer, length), label) for t, label in found] for split, found in read.items()}


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


def batch_of(
    examples: list, edges: Sequence[int], virtual: list[int], size: int, n_labels: int = 2
) -> dict[str, np.ndarray]:
    """One padded batch of `size` rows (empty rows at the end count for nothing), with a soft prompt behind [CLS]."""
    ids, types, labels = zip(*examples, strict=True)
    length = bucket(max(map(len, ids)), edges)
    batch = labelled_batch(ids, labels, length, n_labels=n_labels)
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
    shape = (config["lengths"], virtual, size, config.get("n_labels", 2))
    return [batch_of([examples[i] for i in rows], *shape) for rows in kept]
