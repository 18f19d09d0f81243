"""The model card: every section always there, a head that YAML and the hub can read."""

import json
from pathlib import Path

from research.interop.card import Card, Data, digest, render, write_card

FULL = Card(
    title="Small: a model",
    summary="A test.",
    intended_use="Reading.",
    out_of_scope="Advice.",
    data=(Data("Python docs", "ab" * 32, licence="PSF-2.0"),),
    recipe="AdamW for 10 steps.",
    command="python experiments/train.py",
    results=({"task": "held-out", "bits per byte": 1.23456789}, {"task": "a|b"}),
    limitations="Knows nothing.",
    licence="apache-2.0",
    parent="owner/base",
)
SECTIONS = [
    "Intended use",
    "Out of scope",
    "Parent model",
    "Training data",
    "Training recipe",
    "Evaluation",
    "Limitations",
    "Licence",
]


def test_all_sections_in_order_whatever_is_known() -> None:
    for card in (FULL, Card(title="Empty")):
        titles = [line.removeprefix("## ") for line in render(card).splitlines() if line.startswith("## ")]
        assert titles == SECTIONS
    assert render(Card(title="Empty")).count("Not stated.") == 6


def test_what_is_given_is_shown() -> None:
    text = render(FULL)
    for part in (
        "ab" * 32,
        "PSF-2.0",
        "AdamW for 10 steps.",
        "```bash\npython experiments/train.py\n```",
        "owner/base",
    ):
        assert part in text
    assert "| held-out | 1.23457 |" in text and "| a\\|b |  |" in text


def test_the_head_is_yaml() -> None:
    head = render(FULL).split("---\n")[1]
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    assert {key: json.loads(value) for key, value in fields.items()} == {
        "license": "apache-2.0",
        "language": ["en"],
        "tags": ["jax", "flax"],
        "datasets": ["Python docs"],
        "base_model": "owner/base",
        "library_name": "transformers",
    }
    assert "base_model" not in render(Card(title="Empty")).split("---\n")[1]


def test_the_hub_reads_the_head(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard.load(write_card(tmp_path, FULL)).data
    assert (data.license, data.base_model, data.datasets) == ("apache-2.0", "owner/base", ["Python docs"])


def test_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
