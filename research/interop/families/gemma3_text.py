"""Gemma 3, text only: normed heads, and a RoPE of their own for the sliding layers."""

from typing import Any

from research.interop.families import gemma2, llama
from research.interop.family import Family
from research.interop.hf_keys import Reader
from research.interop.hf_rope import FULL, SLIDING, rope_from, rope_to
from research.models.config import ModelConfig

_GLOBAL, _LOCAL = 1_000_000.0, 10_000.0


def read(reader: Reader) -> dict[str, Any]:
    """Two RoPEs, nested by layer type (transformers 5) or flat with `rope_local_base_freq` (transformers 4)."""
    longest = int(reader.get("max_position_embeddings", 131_072))
    everywhere, local = float(reader.get("rope_theta", _GLOBAL)), float(reader.get("rope_local_base_freq", _LOCAL))
    given = reader.get("rope_parameters", None) or {}
    scaling = reader.get("rope_scaling", None) or {}
    if unknown := sorted(set(given) - {FULL, SLIDING}):
        raise ValueError(f"config.json: rope_parameters has {unknown}; expected {[FULL, SLIDING]}")
    every = int(reader.get("sliding_window_pattern", 6, also=("_sliding_window_pattern",)))
    return gemma2.read_shared(reader, every) | {
        "max_length": longest,
        "rope": rope_from(given.get(FULL) or scaling, everywhere, longest),
        "rope_local": rope_from(given.get(SLIDING) or {}, local, longest),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `read`, nested by layer type; a single RoPE serves both."""
    local = config.rope_local or config.rope
    ropes = {FULL: rope_to(config.rope, config.head_dim), SLIDING: rope_to(local, config.head_dim)}
    return gemma2.write_shared(config) | {"max_position_embeddings": config.max_length, "rope_parameters": ropes}


FAMILY = Family(
    model_type="gemma3_text",
    classes={
        "Gemma3ForCausalLM": {"head": "lm"},
        "Gemma3TextForSequenceClassification": {"head": "sequence", "head_bias": False, "pooling": "last"},
        "Gemma3TextModel": {"head": "none"},
    },
    rows=llama.sandwich_rows,
    keys=gemma2.keys(262_208, None),
    fixed=gemma2.FIXED | {"qk_norm": True},
    read=read,
    write=write,
    # transformers keeps the key from Gemma 2 and never applies it, so a value here would mean two things.
    only=gemma2.ONLY | {"attn_logit_softcapping": (None,)},
    prefix=llama.BASE,
    copies=llama.copies,
    harmless=llama.HARMLESS,
    surplus=llama.surplus,
)
