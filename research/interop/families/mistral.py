"""Mistral: LLaMA whose layers all see a sliding window."""

from typing import Any

from research.interop.families import llama
from research.interop.family import Family, decoder_classes
from research.interop.hf_keys import Reader, identifiers
from research.interop.hf_rope import read_rope, sliding_from, write_rope
from research.models.config import ModelConfig


def read(reader: Reader) -> dict[str, Any]:
    """The rotary settings and the window, 4096 unless given or null."""
    window = reader.values.get("sliding_window", 4096)
    reader.get("sliding_window", None)
    layers = int(reader.get("num_hidden_layers"))
    return read_rope(reader, 10_000.0) | sliding_from(None, window, [True] * layers)


def write(config: ModelConfig) -> dict[str, Any]:
    """The rotary settings and the window."""
    return write_rope(config) | {"sliding_window": config.window or None}


FAMILY = Family(
    model_type="mistral",
    classes=decoder_classes("Mistral"),
    rows=llama.rows,
    keys=(*llama.keys(32_000, False, llama.SILU), *identifiers(None, 1, 2)),
    fixed=llama.FIXED,
    read=read,
    write=write,
    prefix=llama.BASE,
    copies=llama.copies,
    harmless=llama.HARMLESS,
    surplus=llama.surplus,
)
