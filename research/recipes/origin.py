"""Weights that a config names: what a run begins with, and a teacher that stands beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from research import weights
from research.data import load_tokenizer
from research.interop import load_pretrained
from research.interop.run import is_run, load_run, with_head
from research.models import Model, ModelConfig, build
from research.weights.prompts import virtual_ids


def loaded(origin: str, settings: Mapping[str, Any], key: Any) -> tuple[ModelConfig, Any, list[dict[str, Any]]]:
    """(config, weights, their recipe) of a Hugging Face folder or hub id, or of a run, with the model's settings.

    key: of a head that the settings name and that is not stored.
    """
    recipe: list[dict[str, Any]] = []
    head = settings.get("head")
    if is_run(Path(origin)):
        described, params, meta = load_run(origin)
        recipe = weights.describe(meta["config"].get("peft") or ())
        if head not in (None, described.head):
            described, params = with_head(described, params, head, key)
    else:
        described, params, _ = load_pretrained(origin, head=head, key=key)
    return described.replace(**{k: v for k, v in settings.items() if k != "preset"}), params, recipe


class Teacher(NamedTuple):
    """A model that is not trained, and its weights."""

    model: Model
    params: Any


def teacher_of(origin: str, student: Model, unroll: bool | int, tokenizer: Any, key: Any) -> Teacher:
    """The teacher at `origin`, given as `loaded` takes it, in the student's precision.

    Raises:
      ValueError: it has a soft prompt, or brings a tokenizer in which the ids stand for other pieces.
    """
    described, params, _ = loaded(origin, {}, key)
    if virtual_ids(params):
        raise ValueError(f"the teacher {origin} has a soft prompt, which the student's rows have not")
    if (theirs := _own_tokenizer(Path(origin))) is not None:
        ids = range(min(theirs.vocab_size, tokenizer.vocab_size))
        pairs = zip(ids, tokenizer.pieces(ids), theirs.pieces(ids), strict=True)
        for i, mine, other in pairs:
            if mine != other:
                raise ValueError(f"the teacher has another vocabulary: id {i} is {other!r}, the student's is {mine!r}")
    return Teacher(build(described, policy=student.policy, unroll=unroll), params)


def _own_tokenizer(origin: Path) -> Any:
    """The tokenizer in a Hugging Face folder, or the one that was trained beside a run's checkpoints; None without."""
    folder = origin.parent / "tokenizer" if is_run(origin) else origin
    try:
        return load_tokenizer(folder) if folder.is_dir() else None
    except (ValueError, FileNotFoundError):  # weights alone
        return None
