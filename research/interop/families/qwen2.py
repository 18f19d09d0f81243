"""Qwen2: LLaMA with biases on queries, keys and values; its upper layers may slide."""

from typing import Any

from research.interop.families import llama
from research.interop.family import Family, decoder_classes
from research.interop.hf_keys import Reader, identifiers
from research.interop.hf_rope import layer_types, read_rope, sliding_from, write_rope
from research.models.config import ModelConfig


def read(reader: Reader) -> dict[str, Any]:
    """The rotary settings, and the window of the layers from `max_window_layers` on, if windows are in use."""
    layers, first = int(reader.get("num_hidden_layers")), int(reader.get("max_window_layers", 28))
    # Files name a window also where none is in use.
    window = reader.get("sliding_window", 4096)
    window = window if reader.get("use_sliding_window", False) else None
    slides = [layer >= first for layer in range(layers)]
    return read_rope(reader, 10_000.0) | sliding_from(reader.get("layer_types", None), window, slides)


def write(config: ModelConfig) -> dict[str, Any]:
    """The rotary settings, and which layers slide."""
    slides = [config.slides(layer) for layer in range(config.n_layers)]
    return write_rope(config) | {
        "use_sliding_window": any(slides),
        "sliding_window": config.window or None,
        "max_window_layers": slides.index(True) if any(slides) else config.n_layers,
        "layer_types": layer_types(config),
    }


FAMILY = Family(
    model_type="qwen2",
    classes=decoder_classes("Qwen2"),
    rows=llama.rows,
    keys=(*llama.keys(151_936, False, llama.SILU), *identifiers(None, None, None)),
    fixed=llama.FIXED | {"attention_bias": True},
    read=read,
    write=write,
    # Only the multimodal relatives give a head more than one position.
    only={"use_mrope": (False,)},
    prefix=llama.BASE,
    copies=llama.copies,
    harmless=llama.HARMLESS,
    surplus=llama.surplus,
)
