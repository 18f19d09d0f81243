"""Gemma 2: sandwich norms, soft caps, every other layer slides; its keys also serve Gemma 3."""

from typing import Any

from research.interop.families import llama
from research.interop.family import Family, decoder_classes
from research.interop.hf_keys import Key, Reader, activation, cap, identifiers
from research.interop.hf_rope import layer_types, read_rope, sliding_from, write_rope
from research.models.config import ModelConfig

FIXED = {name: value for name, value in llama.FIXED.items() if name not in ("attention_bias", "attention_out_bias")}
FIXED |= {"norm_position": "sandwich", "norm_offset": 1.0}
TANH = activation("hidden_activation", "gelu_pytorch_tanh", "gelu_pytorch_tanh", also=("hidden_act",))
ONLY = {"use_bidirectional_attention": (None, False)}


def keys(vocabulary: int, logit_cap: float | None) -> tuple[Key, ...]:
    """The keys of both generations."""
    shared = tuple(key for key in llama.keys(vocabulary, True, TANH) if key.ours != "head_dim")
    return (
        *shared,
        *llama.BIASES,
        Key("head_dim", "head_dim", 256),
        cap("logit_cap", "final_logit_softcapping", logit_cap),
        *identifiers(0, 2, 1),
    )


def read_shared(reader: Reader, every: int) -> dict[str, Any]:
    """Windows (all layers but each `every`-th slide), the scale of scores, and of embeddings."""
    layers = int(reader.get("num_hidden_layers"))
    slides = [(layer + 1) % every != 0 for layer in range(layers)]
    window = reader.get("sliding_window", 4096, also=("sliding_window_size",))
    return {
        **sliding_from(reader.get("layer_types", None), window, slides),
        "attention_scale": float(reader.get("query_pre_attn_scalar", 256)) ** -0.5,
        "embed_scale": float(reader.get("hidden_size")) ** 0.5,
    }


def write_shared(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `read_shared`."""
    scalar = config.scale**-2
    whole = round(scalar)
    return {
        "layer_types": layer_types(config),
        "sliding_window": config.window or None,
        "query_pre_attn_scalar": whole if abs(whole - scalar) < 1e-6 * scalar else scalar,
    }


def read(reader: Reader) -> dict[str, Any]:
    """One RoPE for all layers; odd layers see everything."""
    reader.only("cache_implementation", "hybrid", None)
    return read_rope(reader, 10_000.0) | read_shared(reader, 2)


def write(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `read`."""
    return write_rope(config) | write_shared(config)


FAMILY = Family(
    model_type="gemma2",
    classes=decoder_classes("Gemma2"),
    rows=llama.sandwich_rows,
    keys=(*keys(256_000, 30.0), cap("attention_cap", "attn_logit_softcapping", 50.0)),
    fixed=FIXED,
    read=read,
    write=write,
    only=ONLY,
    prefix=llama.BASE,
    copies=llama.copies,
    harmless=llama.HARMLESS,
    surplus=llama.surplus,
)
