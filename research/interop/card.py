"""The model card that travels with exported weights: README.md with a YAML head that the hub reads."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NOT_STATED = "Not stated."


@dataclass(frozen=True)
class Data:
    """A data set that a model was trained on, with the digest of the exact bytes."""

    name: str
    sha256: str
    licence: str = "unknown"
    note: str = ""


@dataclass(frozen=True)
class Card:
    """What a reader must know before using the weights; every empty field is shown as not stated."""

    title: str
    summary: str = ""
    intended_use: str = ""
    out_of_scope: str = ""
    data: Sequence[Data] = ()
    recipe: str = ""
    command: str = ""
    results: Sequence[Mapping[str, object]] = ()
    limitations: str = ""
    licence: str = "other"
    parent: str = ""
    languages: Sequence[str] = ("en",)
    tags: Sequence[str] = ("jax", "flax")
    facts: Mapping[str, object] = field(default_factory=dict)


def digest(path: Path) -> str:
    """The sha256 of a file, read in blocks."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def _front_matter(card: Card) -> list[str]:
    # JSON is YAML: quoting through json.dumps keeps colons, hashes and quotes in names harmless.
    fields: dict[str, object] = {
        "license": card.licence,
        "language": list(card.languages),
        "tags": list(card.tags),
        "datasets": [data.name for data in card.data],
        "base_model": card.parent,
        "library_name": "transformers",
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items() if value]
    return ["---", *lines, "---"]


def _cell(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    head = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return head + ["| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |" for row in rows]


def _data_rows(card: Card) -> list[Mapping[str, object]]:
    rows: list[Mapping[str, object]] = []
    for data in card.data:
        digest_or_none = data.sha256 or "not recorded"
        rows.append({"data": data.name, "sha256": digest_or_none, "licence": data.licence, "note": data.note})
    return rows


def _recipe(card: Card) -> list[str]:
    command = ["", "```bash", card.command, "```"] if card.command else []
    return [card.recipe or NOT_STATED, *command]


def render(card: Card) -> str:
    """The card as Markdown, always with the same sections in the same order."""
    sections: list[tuple[str, list[str]]] = [
        ("Intended use", [card.intended_use or NOT_STATED]),
        ("Out of scope", [card.out_of_scope or NOT_STATED]),
        ("Parent model", [card.parent or "None: trained from random weights, or not stated."]),
        ("Training data", _table(_data_rows(card)) if card.data else [NOT_STATED]),
        ("Training recipe", _recipe(card)),
        ("Evaluation", _table(card.results) if card.results else ["Not evaluated."]),
        ("Limitations", [card.limitations or NOT_STATED]),
        ("Licence", [card.licence]),
    ]
    if card.facts:
        sections.insert(0, ("Model", [f"- {name}: {_cell(value)}" for name, value in card.facts.items()]))
    lines = [*_front_matter(card), "", f"# {card.title}", "", card.summary or NOT_STATED]
    for title, body in sections:
        lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def write_card(folder: Path, card: Card) -> Path:
    """Writes the card as README.md of the folder and returns its path."""
    path = folder / "README.md"
    path.write_text(render(card), encoding="utf-8")
    return path
