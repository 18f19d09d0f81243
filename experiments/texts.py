"""Texts and tasks as examples for training and scoring: read from files, or written by a model itself."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.data import python_docs
from research.data.files import documents, read_examples, read_text
from research.data.packing import Example
from research.data.templates import encode_examples
from research.decoding import Sampling, generate, prepare
from research.models import Model

Split = dict[str, list[Example]]


def multi30k(root: Path) -> dict[str, list[dict[str, str]]]:
    """ "train" and "dev": English descriptions of pictures as prompts, German ones as completions.

    Raises:
      ValueError: unequally many lines in the two languages.
    """
    parts = {}
    for name, split in (("train", "train.8000"), ("dev", "val")):
        en, de = (read_text(root / "multi30k" / f"{split}.{side}").splitlines() for side in ("en", "de"))
        if len(en) != len(de):
            raise ValueError(f"multi30k/{split} has {len(en)} English and {len(de)} German lines")
        parts[name] = [{"prompt": a, "completion": b} for a, b in zip(en, de, strict=True)]
    return parts


def read_part(part: Mapping[str, Any], root: Path, tokenizer: Any, length: int) -> Split:
    """Training and held-out examples of one text or task; one document or example in ten is held out.

    `part` is {"text": file} (cut into documents of about 2000 characters), {"python_docs": true}, {"examples": file},
    or {"fenced": file}: texts between the fences of a Markdown file, all held out. `limit` bounds the documents.

    Raises:
      ValueError: none of these, or a file in which nothing is found.
    """
    kind = next((k for k in ("text", "python_docs", "examples", "fenced") if k in part), None)
    if kind is None:
        raise ValueError(f"a part is one of text, python_docs, examples, fenced; given {sorted(part)}")
    if kind == "examples":
        found: Sequence[Any] = list(read_examples(root / part[kind]))
    elif kind == "python_docs":
        found = [document.text for document in python_docs.corpus()]
    elif kind == "fenced":
        found = [text.strip() for text in re.findall(r"^(Once .*?)```", read_text(root / part[kind]), re.M | re.S)]
    else:
        found = [piece for text in documents(root / part[kind]) for piece in pieces_of(text, 2000)]
    if not found:
        raise ValueError(f"nothing was found in {part}")
    found = found[:: max(1, len(found) // part["limit"])] if part.get("limit") else found
    # Examples are split as data sections split them, so that a model tuned on the training part has not seen the rest.
    held = [
        python_docs.is_heldout(str(sorted(x.items())), 0.1) if kind == "examples" else kind == "fenced" or i % 10 == 9
        for i, x in enumerate(found)
    ]
    sides = {"train": [x for x, h in zip(found, held, strict=True) if not h]}
    sides["heldout"] = [x for x, h in zip(found, held, strict=True) if h]
    if kind == "examples":
        return {side: encode_examples(x, tokenizer, max_length=length, long="drop") for side, x in sides.items()}
    return {side: windows([tokenizer.encode(t) for t in x], tokenizer.bos_id, length) for side, x in sides.items()}


def pieces_of(text: str, size: int) -> list[str]:
    """A long text in pieces of at least `size` characters that end with a blank line (the last one may be shorter)."""
    out, current = [], ""
    for paragraph in re.split(r"(?<=\n\n)", text):
        current += paragraph
        if len(current) >= size:
            out.append(current.strip())
            current = ""
    return [piece for piece in [*out, current.strip()] if piece]


def windows(texts: Sequence[Sequence[int]], bos_id: int, length: int) -> list[Example]:
    """Every token once, in windows of `length` that begin with the start token; all but that are predicted."""
    found = []
    for ids in texts:
        for first in range(0, len(ids), length - 1):
            tokens = np.array([bos_id, *ids[first : first + length - 1]], np.int32)
            found.append(Example(tokens, np.ones(len(tokens), np.float32)))
    return found


def own_samples(model: Model, params: Any, bos_id: int, settings: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Texts that the model itself writes at temperature 1: what it knew, when its training text is not at hand."""
    out, ready = [], prepare(model, params)
    for first in range(0, settings["count"], 64):
        seeds = range(first, min(first + 64, settings["count"]))
        made = generate(
            model,
            ready,
            [[bos_id]] * len(seeds),
            max_new_tokens=length - 1,
            sampling=Sampling(temperature=1.0),
            stop_tokens=(bos_id,),
            key=settings["seed"],
            seeds=list(seeds),
            logprobs=False,
        )
        out += [[t for t in made.ids(row) if t != bos_id] for row in range(len(seeds))]
    return {"texts": [ids for ids in out if ids]}
