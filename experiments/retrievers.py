"""Ways to find texts, side by side: by words, by MiniLM, by small encoders trained here, and fused.

A cell is (collection, way, seed): one JSON file with the ranking of every query. Fusions are made of those. The small
encoder of the first seed of every collection is written to the folder of its name.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from experiments.cells import Cell, data_folder, names, picked, spread, sweep
from experiments.loading import encoder_folder
from experiments.small_encoder import Titled, fit, python_pairs
from research.apps.retrieval.bm25 import BM25
from research.apps.retrieval.embed import Embed
from research.apps.retrieval.fusion import reciprocal_rank
from research.core.names import meant
from research.decoding.embedder import load_embedder
from research.evaluation.ranking import per_query
from research.evaluation.text_metrics import bootstrap
from research.report import plots, print_table

SMALL, PRETRAINED, WORDS, CHANCE = "trained here", "MiniLM", "BM25", "in random order"
FUSED = ((WORDS, PRETRAINED), (WORDS, SMALL), (WORDS, PRETRAINED, SMALL))


class Collection(NamedTuple):
    """Texts and queries by name, which texts are right for a query, and titled texts that an encoder may learn from."""

    texts: Mapping[str, str]
    queries: Mapping[str, str]
    judgements: Mapping[str, Mapping[str, int]]
    learned: Sequence[Titled]


def cranfield(config: Mapping[str, Any]) -> Collection:
    """Abstracts of aerodynamics with judged questions; encoders learn from the abstracts and their titles alone."""
    folder = data_folder(config["data"]) / "cranfield"
    read = lambda name: map(json.loads, (folder / name).read_text(encoding="utf-8").splitlines())  # noqa: E731
    documents = list(read("corpus.jsonl"))
    # An abstract begins with its title.
    learned = [Titled(d["title"], d["text"].removeprefix(d["title"]).strip()) for d in documents]
    judgements: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        judgements.setdefault(query, {})[document] = int(grade)
    return Collection(
        {d["_id"]: f"{d['title']} {d['text']}" for d in documents},
        {q["_id"]: q["text"] for q in read("queries.jsonl")},
        judgements,
        [pair for pair in learned if pair.title and pair.text],
    )


def python(config: Mapping[str, Any]) -> Collection:
    """Docstrings that no encoder has seen, to be found by their first paragraphs, and topics by their titles."""
    train, held_out = python_pairs(config["held_out"])
    named = {str(i): pair for i, pair in enumerate(held_out)}
    titled: dict[str, dict[str, int]] = {}
    for name, pair in named.items():
        titled.setdefault(pair.title, {})[name] = 1
    return Collection(
        {name: pair.text for name, pair in named.items()},
        {name: pair.title for name, pair in named.items()},
        {name: titled[pair.title] for name, pair in named.items()},
        train,
    )


COLLECTIONS: dict[str, Callable[[Mapping[str, Any]], Collection]] = {"cranfield": cranfield, "python": python}


def by_words(collection: Collection) -> list[np.ndarray]:
    """Scores of all texts for every query."""
    bm25 = BM25(list(collection.texts.values()))
    return [bm25.scores(query) for query in collection.queries.values()]


def by_vectors(collection: Collection, embed: Embed) -> list[np.ndarray]:
    """Cosines of all texts for every query."""
    queries, texts = (embed(list(given.values())) for given in (collection.queries, collection.texts))
    return list(queries @ texts.T)


def run_cell(config: Mapping[str, Any], collection: Collection, way: str, seed: int, keep: Path) -> dict[str, Any]:
    """The first `depth` texts of every query, and what training cost."""
    costs: dict[str, Any] = {}
    if way == WORDS:
        scores = by_words(collection)
    elif way == PRETRAINED:
        folder = encoder_folder(config["encoder"])
        scores = by_vectors(collection, load_embedder(folder, policy=config["small"]["policy"]))
    elif way == SMALL:
        embedder, costs = fit(config["small"], collection.learned, seed)
        scores = by_vectors(collection, embedder)
        if seed == config["seeds"][0]:
            embedder.save(keep)
    else:
        scores = list(np.random.default_rng(seed).random((len(collection.queries), len(collection.texts))))
    return {
        "rankings": dict(zip(collection.queries, (first(collection, s, config) for s in scores), strict=True))
    } | costs


def first(collection: Collection, scores: np.ndarray, config: Mapping[str, Any]) -> list[str]:
    """The names of the best texts; what has no word in common is not found by words."""
    best = np.argsort(-scores, kind="stable")[: config["depth"]]
    found = list(collection.texts)
    return [found[i] for i in best if scores[i] != 0]


def measured(rankings: Mapping[str, Sequence[str]], collection: Collection, measures: Sequence[str]) -> dict[str, Any]:
    """Measure -> a value for every query."""
    run = {query: {name: -rank for rank, name in enumerate(ranking)} for query, ranking in rankings.items()}
    values = per_query(run, collection.judgements, measures)
    return {measure: np.array(list(values[measure].values())) for measure in measures}


def work(config: Mapping[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the tables and draws the figure."""
    if unknown := [name for name in config["collections"] if name not in COLLECTIONS]:
        raise ValueError(f"unknown collection {unknown[0]!r}{meant(unknown[0], COLLECTIONS)}; have {list(COLLECTIONS)}")
    groups: dict[str, dict[str, tuple[float, float, float]]] = {}
    for name in config["collections"]:
        collection = COLLECTIONS[name](config)
        settings = {k: config[k] for k in ("small", "encoder", "held_out", "depth", "data")}
        grid = [
            Cell(
                {"collection": name, "way": way, "seed": seed},
                settings,
                partial(run_cell, config, collection, way, seed, workdir / name),
            )
            for way in (CHANCE, WORDS, PRETRAINED, SMALL)
            for seed in (config["seeds"] if way in (CHANCE, SMALL) else config["seeds"][:1])
        ]
        results = sweep(grid, workdir, console)
        rows, groups[name] = table(results, collection, config["measures"])
        title = f"{name}: {len(collection.judgements)} queries, {len(collection.texts)} texts"
        print_table(title, ["", *config["measures"]], rows, console=console)
    drawn = plots.bars(groups, y_label=config["measures"][0], size=(7.4, 3.6))
    console.print(f"The figure: [bold]{plots.save(drawn, workdir / 'retrievers.png')}[/]", soft_wrap=True)


def table(
    results: Sequence[Mapping[str, Any]], collection: Collection, measures: Sequence[str]
) -> tuple[list[list[str]], dict[str, tuple[float, float, float]]]:
    """A row for each way, its means with intervals over queries and their spread over seeds; bars of the first."""
    ways: dict[str, list[Mapping[str, Sequence[str]]]] = {
        way: [r["rankings"] for r in picked(results, way=way)] for way in names(results, "way")
    }
    for parts in FUSED:
        seeds = max(len(ways[part]) for part in parts)
        ways[" + ".join(parts)] = [
            {
                query: [name for name, _ in reciprocal_rank([ways[p][seed % len(ways[p])][query] for p in parts])]
                for query in collection.queries
            }
            for seed in range(seeds)
        ]
    rows, drawn = [], {}
    for way, runs in ways.items():
        found = [measured(run, collection, measures) for run in runs]
        rows.append([way, *(shown([one[measure] for one in found]) for measure in measures)])
        drawn[way] = tuple(bootstrap(np.mean([one[measures[0]] for one in found], axis=0)))
    return rows, drawn


def shown(values: Sequence[np.ndarray]) -> str:
    """The mean over seeds and queries with its interval over queries, and the spread over seeds."""
    low, mean, high = bootstrap(np.mean(values, axis=0))
    seeds = "" if len(values) < 2 else f" ({spread([float(v.mean()) for v in values])})"
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]{seeds}"
