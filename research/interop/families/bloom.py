"""BLOOM: ALiBi, a norm after the embedding, fused query-key-value interleaved by head.

Axis names as in `research/core/types.py`.
"""

from typing import Any

from research.interop.family import Family, decoder_classes, decoder_head
from research.interop.hf_keys import Key, Reader, identifiers
from research.interop.table import Row, dense, interleaved, norm
from research.models.config import ModelConfig

_BASE = "transformer."
_LAYER = f"{_BASE}h.{{l}}."
_OURS = "decoder/layers/"


def _qkv(leaf: str) -> tuple[str, ...]:
    return tuple(f"{_OURS}attention/{part}/{leaf}" for part in "qkv")


def rows(config: ModelConfig) -> list[Row]:
    """All weights."""
    fused = f"{_LAYER}self_attention.query_key_value"
    return [
        Row(("embed/tokens/embedding",), f"{_BASE}word_embeddings.weight"),
        *norm("decoder/embed_norm", f"{_BASE}word_embeddings_layernorm"),
        *norm(f"{_OURS}attention_norm", f"{_LAYER}input_layernorm"),
        Row(_qkv("kernel"), f"{fused}.weight", interleaved(config.n_heads, kernel=True)),
        Row(_qkv("bias"), f"{fused}.bias", interleaved(config.n_heads, kernel=False)),
        *dense(f"{_OURS}attention/o", f"{_LAYER}self_attention.dense"),
        *norm(f"{_OURS}mlp_norm", f"{_LAYER}post_attention_layernorm"),
        *dense(f"{_OURS}mlp/up", f"{_LAYER}mlp.dense_h_to_4h"),
        *dense(f"{_OURS}mlp/down", f"{_LAYER}mlp.dense_4h_to_h"),
        *norm("decoder/final_norm", f"{_BASE}ln_f"),
        *decoder_head(config, token="classifier"),
    ]


def read(reader: Reader) -> dict[str, Any]:
    """Width under its two names, and the feed-forward layer of four times that."""
    width = int(reader.get("n_embed", None) or reader.get("hidden_size", 64))
    reader.only("n_inner", None, 4 * width)
    return {"d_model": width, "d_ff": 4 * width}


def write(config: ModelConfig) -> dict[str, Any]:
    """The width; the feed-forward width follows from it."""
    return {"hidden_size": config.d_model}


_MEGATRON = ("attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi")

FAMILY = Family(
    model_type="bloom",
    classes=decoder_classes("Bloom"),
    rows=rows,
    keys=(
        Key("vocab_size", "vocab_size", 250_880),
        # ALiBi has no table: the length trained on is kept under the name that BLOOM's own files use.
        Key("max_length", "seq_length", 2048),
        Key("n_layers", "n_layer", 2, ("num_hidden_layers",)),
        Key("n_heads", "n_head", 8, ("num_attention_heads",)),
        Key("norm_eps", "layer_norm_epsilon", 1e-5),
        Key("embed_dropout", "hidden_dropout", 0.0),
        Key("residual_dropout", "hidden_dropout", 0.0),
        Key("attention_dropout", "attention_dropout", 0.0),
        Key("tied", "tie_word_embeddings", True),
        *identifiers(None, 1, 2),
    ),
    fixed={
        "kind": "decoder",
        "norm": "layernorm",
        "norm_position": "pre",
        "positions": "alibi",
        "embed_norm": True,
        "activation": "gelu_tanh",
    },
    read=read,
    write=write,
    only={
        "apply_residual_connection_post_layernorm": (False,),
        "skip_bias_add": (True, False),
        "skip_bias_add_qkv": (False,),
        **dict.fromkeys(_MEGATRON, (True, False, 0, 100)),
    },
    prefix=_BASE,
    copies=lambda config: {"lm_head.weight": f"{_BASE}word_embeddings.weight"},
    surplus=lambda config: (r"lm_head\.weight", r"score\.weight", r"classifier\..*"),
)
