"""Scores of token classification: entities found whole and of the right kind."""

from collections.abc import Sequence
from typing import NamedTuple


class Entity(NamedTuple):
    """Tokens start .. end (the end not included) and their kind."""

    start: int
    end: int
    kind: str


class Found(NamedTuple):
    """Micro-averaged precision, recall and F₁ of entities."""

    precision: float
    recall: float
    f1: float


def entities(labels: Sequence[str]) -> list[Entity]:
    """The entities of one text's BIO labels; an `I-x` that continues nothing begins one, as in `conlleval`.

    Raises:
      ValueError: a label that is neither "O" nor "B-..." nor "I-...".
    """
    found: list[Entity] = []
    start, kind = 0, ""
    for i, label in enumerate([*labels, "O"]):
        mark, _, name = label.partition("-")
        if mark not in ("B", "I", "O") or (mark == "O") == bool(name):
            raise ValueError(f"label {label!r} at {i} is none of 'O', 'B-kind', 'I-kind'")
        if kind and (mark != "I" or name != kind):
            found.append(Entity(start, i, kind))
            kind = ""
        if mark != "O" and not kind:
            start, kind = i, name
    return found


def entity_f1(predicted: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> Found:
    """2PR/(P+R) over all texts' entities; one counts if start, end and kind agree (0 where there is none).

    See *Introduction to the CoNLL-2003 Shared Task*, Tjong Kim Sang and De Meulder,
    https://arxiv.org/abs/cs/0306050.

    Raises:
      ValueError: unequally many texts, or labels in one of them.
    """
    if [len(p) for p in predicted] != [len(e) for e in expected]:
        raise ValueError(
            f"{len(predicted)} texts with {sum(map(len, predicted))} predicted labels, "
            f"{len(expected)} texts with {sum(map(len, expected))} expected ones; they must agree text by text"
        )
    mine = {(i, *e) for i, labels in enumerate(predicted) for e in entities(labels)}
    right = {(i, *e) for i, labels in enumerate(expected) for e in entities(labels)}
    both = len(mine & right)
    precision, recall = both / max(len(mine), 1), both / max(len(right), 1)
    return Found(precision, recall, 2 * precision * recall / (precision + recall) if both else 0.0)
