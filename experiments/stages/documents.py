"""Stage 1: the text that every Python carries, split by document, and instruction tasks made from it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.stages.stage import Done, Stage, write_lines
from research.data import python_docs
from research.data.instructions import instruction_tasks

SHORT = 40  # characters; shorter paragraphs ("Example:") repeat everywhere and give nothing away


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Writes train.jsonl, held_out.jsonl (name, text) and train_tasks.jsonl, test_tasks.jsonl."""
    del inputs
    settings = config["documents"]
    train_tasks, test_tasks = instruction_tasks(heldout=settings["held_out_functions"], phrasings=1)
    # What is asked about held-out functions must not be read in pre-training: not there, not in a copy elsewhere.
    hidden = {task.function for task in test_tasks}
    secret = [f.docstring for f in python_docs.functions() if f.key in hidden]
    seen = {squeezed(paragraph) for text in secret for paragraph in text.split("\n\n")}
    train, held_out = python_docs.split(python_docs.corpus(exclude=hidden), settings["held_out"])
    train = list(without_repeats(train[: settings["limit"] or None], seen))
    held_out = list(without_repeats(held_out[: settings["limit"] or None], seen))
    for name, documents in (("train", train), ("held_out", held_out)):
        write_lines(folder / f"{name}.jsonl", [document._asdict() for document in documents])
    limit = settings["limit"] * 10 or None
    for name, tasks in (("train_tasks", train_tasks[:limit]), ("test_tasks", test_tasks[:limit])):
        write_lines(folder / f"{name}.jsonl", [task._asdict() for task in tasks])
    return {
        "documents": [len(train), len(held_out)],
        "bytes": [sum(len(d.text.encode()) for d in documents) for documents in (train, held_out)],
        "tasks": [len(train_tasks[:limit]), len(test_tasks[:limit])],
        "sha256": python_docs.digest([*train, *held_out]),
    }


def squeezed(paragraph: str) -> str:
    return " ".join(paragraph.split())


def without_repeats(documents: Iterable[python_docs.Document], seen: set[str]) -> Iterable[python_docs.Document]:
    """Documents without the paragraphs that are in `seen`, which grows; documents left empty are dropped."""
    for name, text in documents:
        kept = []
        for paragraph in text.replace("\0", "").split("\n\n"):
            key = squeezed(paragraph)
            if len(key) >= SHORT and key in seen:
                continue
            seen.add(key)
            kept.append(paragraph)
        if any(squeezed(paragraph) for paragraph in kept):
            yield python_docs.Document(name, "\n\n".join(kept))


STAGE = Stage(
    name="documents",
    title="Text: the language reference and the docstrings of this Python",
    run=run,
    reads=("documents",),
    makes=("train.jsonl", "held_out.jsonl", "train_tasks.jsonl", "test_tasks.jsonl"),
)
