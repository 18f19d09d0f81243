"""Questions answered from documents: index them, ask, and measure retrieval and answers.

    python -m experiments.rag --config=configs/rag.py:index [--config.documents=FOLDER]
    python -m experiments.rag --config=configs/rag.py:ask --config.question="..." [--config.model=FOLDER or ADDRESS]
    python -m experiments.rag --config=configs/rag.py:retrievers
    python -m experiments.rag --config=configs/rag.py:answers [--config.model=...]

The store is one file in the workdir, and beside it stands the encoder that was trained for it; `index` again reads only
what changed.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

# Also as `python experiments/rag.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command, indexed, reader, retrievers
from experiments.loading import language_model
from experiments.small_encoder import Titled, fit
from research.apps.protocol import LanguageModel, Options
from research.apps.retrieval import files, python_docs
from research.apps.retrieval.chunks import Chunker
from research.apps.retrieval.files import Unread
from research.apps.retrieval.ingest import ingest
from research.apps.retrieval.prompt import NOT_FOUND, Answer, answer
from research.apps.retrieval.sqlite import SQLiteStore
from research.core import compilation
from research.core.names import meant
from research.evaluation import judge
from research.report import print_table

TITLES = 500  # headings that tell how close what the documents hold is


def documents(config: Mapping[str, Any]) -> list[Unread]:
    """What is to be indexed."""
    found = list(files.folder(config["documents"]) if config["documents"] else python_docs.documents())
    return found[:: max(1, len(found) // config["limit"])] if config["limit"] else found


def chunker(config: Mapping[str, Any]) -> Chunker:
    """The config's way to chunk; its sizes are in words."""
    return Chunker(**config["chunks"])


def trained(config: Mapping[str, Any], workdir: Path, console: Console) -> None:
    """Trains the small encoder on the documents, at the first time."""
    folder = workdir / indexed.ENCODER
    if config["embedder"] or folder.is_dir():
        return
    console.print("No encoder yet: one is trained on the documents")
    cut = chunker(config)
    chunks = [chunk for document in documents(config) for chunk in cut(document.read())]
    titled = [Titled(chunk.heading or chunk.title, chunk.text) for chunk in chunks]
    made, costs = fit(config["small"], [pair for pair in titled if pair.title], config["seed"])
    console.print(f"  {costs['trainable']:,} parameters, last loss {costs['loss']:.3f}")
    part = workdir / f"{indexed.ENCODER}.part"
    made.save(part)
    part.replace(folder)


def index(config: Mapping[str, Any], workdir: Path, console: Console) -> None:
    """Brings the store up to date, and measures how close the headings' best passages are."""
    trained(config, workdir, console)
    embed = indexed.embedder(config["embedder"], workdir)
    store = SQLiteStore(workdir / indexed.STORE, embedder=embed.name, width=embed.width)
    done = ingest(documents(config), store, embed, chunker(config), console=console)
    chunks = store.get()
    titles = sorted({chunk.heading or chunk.title for chunk in chunks} - {""})
    if not titles:
        raise ValueError("the documents have neither titles nor headings by which closeness could be measured")
    asked = titles[:: max(1, len(titles) // TITLES)]
    best = [store.search(vector, 1)[0].score for vector in embed([f"What does {title} do?" for title in asked])]
    least = float(np.quantile(best, config["refuse"]))
    indexed.remember(workdir, least, config["embedder"], config["kind"])
    console.print(
        f"{len(store)} passages in {workdir / indexed.STORE}: {done.added} documents added, {done.changed} changed, "
        f"{done.unchanged} unchanged, {done.removed} removed",
        soft_wrap=True,
    )
    for problem in done.problems:
        console.print(f"left out: {problem}", style="yellow", markup=False, soft_wrap=True)


def model_of(config: Mapping[str, Any]) -> LanguageModel | None:
    """A model here or at an address; None where the config names none."""
    named = [config[name] for name in ("model", "tokenizer", "name", "key_variable")]
    path, tokenizer, name, key_variable = named
    return language_model(path, tokenizer, "bf16", name, key_variable) if path else None


def ask(config: Mapping[str, Any], workdir: Path, console: Console) -> None:
    """Answers one question, and shows what it is based on."""
    if not config["question"]:
        raise ValueError('nothing was asked: give --config.question="..."')
    find, model = indexed.retriever(workdir, config["kind"], config["rerank"]), model_of(config)
    if model is None:
        hits = find(config["question"], config["k"])
        given = Answer("" if hits else NOT_FOUND, passages=tuple(hits))
    else:
        options = Options(max_new_tokens=config["answer_tokens"])
        given = answer(config["question"], find, model, options, k=config["k"], chat=config["chat"])
    if given.text:
        console.print(given.text, markup=False)
    if given.dropped:
        console.print(f"{given.dropped} passages did not fit the model's window", style="dim")
    for i, hit in enumerate(given.passages, start=1):
        told = "cited" if hit in given.cited else "read"
        where = f"{hit.chunk.source} {hit.chunk.start}-{hit.chunk.end}"
        console.print(f"[{i}] {told if model else ''} {where} {hit.chunk.heading}", markup=False, style="bold")
        if model is None or hit in given.cited:
            console.print(hit.chunk.text, markup=False, highlight=False)


def answers(config: Mapping[str, Any], workdir: Path, console: Console) -> None:
    """Answers questions about functions, and ones that the documents cannot answer; prints and keeps the scores."""
    find, model = indexed.retriever(workdir, config["kind"], config["rerank"]), model_of(config)
    asked = reader.questions(find.store.get(), config["seed"])[: config["questions"]]
    if not asked:
        raise ValueError(
            "the store holds no docstring of this Python's functions, about which questions could be asked"
        )
    ways = {"first line of the best passage": reader.by_first_line(find, config["k"])}
    if model is not None:
        options = Options(max_new_tokens=config["answer_tokens"])
        ways[config["name"] or config["model"]] = reader.by_model(
            find, config["k"], model, options, chat=config["chat"]
        )
    rater = judge.Address(**config["judge"]) if config["judge"]["url"] else None
    results = {}
    for name, way in ways.items():
        given = way([question.text for question in asked])
        results[name] = dict(reader.scored(asked, given))
        results[name]["refused outside"] = (reader.refused(way(reader.OUTSIDE)),)
        if rater is not None:
            results[name]["rating"] = reader.faithfulness(rater, asked, given)
    measures = list(next(iter(results.values())))
    rows = [[name, *(shown(found[measure]) for measure in measures)] for name, found in results.items()]
    print_table(f"{len(asked)} questions about functions, {config['kind']}", ["", *measures], rows, console=console)
    (workdir / "answers.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def shown(interval: tuple[float, ...]) -> str:
    """A mean with its interval, or one number."""
    return f"{interval[0]:.2f}" if len(interval) == 1 else "{1:.2f} [{0:.2f}, {2:.2f}]".format(*interval)


TASKS = {"index": index, "ask": ask, "retrievers": retrievers.work, "answers": answers}


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the config's task."""
    compilation.use_cache()
    task = config["task"]
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}{meant(task, TASKS)}; have {list(TASKS)}")
    TASKS[task](config, workdir, console)


if __name__ == "__main__":
    command.run(work, config="configs/rag.py:index", workdir="runs/rag")
