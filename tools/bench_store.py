"""The stores at 100,000 x 384: how fast they take in, what they find of the ten nearest, and how long a search takes.

    python tools/bench_store.py [--chunks 100000] [--width 384] [--queries 200]

Vectors are of two kinds: clustered, as embeddings of texts about some things are (2,000 random centres, each vector one
of them plus noise of 0.6 of its length), and evenly random, in which nothing is near anything and every approximate
index is at its worst. Queries are drawn like the vectors. A search includes reading the texts of what it found;
recall@10 is against exact search. LanceDB takes part where it is installed. Ingestion is 1,000 chunks of ten documents
at a time.
"""

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench_common as common
import numpy as np

from research.apps.retrieval.document import Chunk
from research.apps.retrieval.lance import LanceStore
from research.apps.retrieval.sqlite import SQLiteStore
from research.apps.retrieval.store import Entry, Store
from research.report.terminal import print_table

K, PER_DOCUMENT, DOCUMENTS = 10, 100, 10
WORDS = ("wing", "slipstream", "drag", "lift", "mach", "heat", "plate", "shock", "layer", "flow", "boundary", "jet")


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def vectors(kind: str, number: int, width: int, seed: int) -> np.ndarray:
    """[number, width] unit vectors of a kind."""
    noise = unit(np.random.default_rng(seed).normal(size=(number, width)))
    if kind == "random":
        return noise
    centres = unit(np.random.default_rng(0).normal(size=(2000, width)))
    return unit(centres[np.random.default_rng(seed).integers(0, 2000, number)] + 0.6 * noise)


def fill(store: Store, rows: np.ndarray) -> float:
    """Stores everything; the seconds it took."""
    rng, spent = np.random.default_rng(1), 0.0
    for start in range(0, len(rows), DOCUMENTS * PER_DOCUMENT):
        entries = []
        for first in range(start, min(start + DOCUMENTS * PER_DOCUMENT, len(rows)), PER_DOCUMENT):
            part = rows[first : first + PER_DOCUMENT]
            texts = [" ".join(rng.choice(WORDS, 60)) for _ in part]
            chunks = [Chunk(t, f"d{first}", i, i + 1, "title", "", {"year": first}) for i, t in enumerate(texts)]
            entries.append(Entry(f"d{first}", "", chunks, part))
        began = time.perf_counter()
        store.upsert(entries)
        spent += time.perf_counter() - began
    return spent


def timed(run: Callable[[], Any]) -> float:
    """Seconds."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def search(store: Store, queries: np.ndarray) -> tuple[list[set[str]], dict[str, float]]:
    """What every query finds, and p50 and p99 in milliseconds; the first search, which loads, is not counted."""
    store.search(queries[0], K)
    found, seconds = [], []
    for query in queries:
        began = time.perf_counter()
        hits = store.search(query, K)
        seconds.append(time.perf_counter() - began)
        found.append({hit.chunk.id for hit in hits})
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1000
    return found, {"p50_ms": float(p50), "p99_ms": float(p99)}


def measure(kind: str, chunks: int, width: int, queries: int, folder: Path) -> dict[str, dict[str, float]]:
    """Way to search -> its figures."""
    rows, asked = vectors(kind, chunks, width, 1), vectors(kind, queries, width, 2)
    named: dict[str, Any] = {"embedder": "random", "width": width}
    stores: dict[str, Store] = {
        "exact": SQLiteStore(folder / kind, **named, exact_to=chunks),
        "faiss": SQLiteStore(folder / kind, **named, exact_to=0),
    }
    if importlib.util.find_spec("lancedb"):
        stores["lancedb"] = LanceStore(str(folder / f"{kind}.lance"), **named, exact_to=0)
    right: list[set[str]] = []
    figures: dict[str, dict[str, float]] = {}
    for name, store in stores.items():
        figures[name] = {} if name == "faiss" else {"chunks_per_s": chunks / fill(store, rows)}
        figures[name] |= {"index_s": timed(store.index)} if name != "exact" else {}
        found, times = search(store, asked)
        right = right or found
        recall = np.mean([len(a & b) / K for a, b in zip(found, right, strict=True)])
        figures[name] |= {"recall": float(recall), **times}
        store.close()
    return figures


def main() -> None:
    """Measures and prints."""
    args = common.arguments(__doc__ or "", chunks=100_000, width=384, queries=200)
    common.settings(chunks=args.chunks, width=args.width, queries=args.queries)
    columns = ["chunks_per_s", "index_s", "recall", "p50_ms", "p99_ms"]
    result = {}
    for kind in ("clustered", "random"):
        with tempfile.TemporaryDirectory() as folder:
            result[kind] = measure(kind, args.chunks, args.width, args.queries, Path(folder))
        rows = [[name, *(figures.get(column) for column in columns)] for name, figures in result[kind].items()]
        print_table(f"{kind} vectors", ["", *columns], rows)
    common.finish(
        **{
            f"{kind}_{name}_{column}": value
            for kind, ways in result.items()
            for name, figures in ways.items()
            for column, value in figures.items()
        }
    )


if __name__ == "__main__":
    main()
