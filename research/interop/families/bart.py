"""BART: post-norm encoder and decoder with learned positions that begin at row 2.

Axis names as in `research/core/types.py`.
"""

from typing import Any

import numpy as np

from research.interop.family import Family, labels_head
from research.interop.folder import Tensors
from research.interop.hf_keys import Key, Reader, activation, identifier, identifiers
from research.interop.table import LIFTED, Row, dense, norm
from research.models.config import ModelConfig

_BASE = "model."
_BIAS = "final_logits_bias"
_PARTS = (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj"))


def _attention(ours: str, theirs: str) -> list[Row]:
    return [row for a, b in _PARTS for row in dense(f"{ours}/{a}", f"{theirs}.{b}")]


def _stack(side: str) -> list[Row]:
    layer, ours = f"{_BASE}{side}.layers.{{l}}.", f"{side}/layers/"
    return [
        Row((f"{side}/positions/embedding",), f"{_BASE}{side}.embed_positions.weight"),
        *norm(f"{side}/embed_norm", f"{_BASE}{side}.layernorm_embedding"),
        *_attention(f"{ours}attention", f"{layer}self_attn"),
        *norm(f"{ours}attention_norm", f"{layer}self_attn_layer_norm"),
        *_attention(f"{ours}cross", f"{layer}encoder_attn"),
        *norm(f"{ours}cross_norm", f"{layer}encoder_attn_layer_norm"),
        *dense(f"{ours}mlp/up", f"{layer}fc1"),
        *dense(f"{ours}mlp/down", f"{layer}fc2"),
        *norm(f"{ours}mlp_norm", f"{layer}final_layer_norm"),
    ]


def rows(config: ModelConfig) -> list[Row]:
    """All weights."""
    body = [Row(("embed/tokens/embedding",), f"{_BASE}shared.weight"), *_stack("encoder"), *_stack("decoder")]
    if config.head == "lm":
        return [*body, Row(("head/table/embedding",), "lm_head.weight"), Row(("head/bias",), _BIAS, LIFTED)]
    heads = labels_head("classification_head.dense", "classification_head.out_proj", with_dense=True)
    return body if config.head == "none" else [*body, *heads]


def read(reader: Reader) -> dict[str, Any]:
    """Depths; both sides must be equally wide, as our config has one width for both."""
    heads = int(reader.get("decoder_attention_heads", 16, also=("num_attention_heads",)))
    width = int(reader.get("decoder_ffn_dim", 4096))
    reader.only("encoder_attention_heads", heads)
    reader.only("encoder_ffn_dim", width)
    layers = int(reader.get("encoder_layers", 12, also=("num_hidden_layers",)))
    scaled = bool(reader.get("scale_embedding", False))
    return {
        "n_heads": heads,
        "d_ff": width,
        "n_encoder_layers": layers,
        "n_layers": int(reader.get("decoder_layers", 12)),
        "embed_scale": float(reader.get("d_model", 1024)) ** 0.5 if scaled else 1.0,
    }


def write(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `read`."""
    sides = ("encoder", "decoder")
    return {
        **{f"{side}_attention_heads": config.n_heads for side in sides},
        **{f"{side}_ffn_dim": config.d_ff for side in sides},
        "encoder_layers": config.n_encoder_layers,
        "decoder_layers": config.n_layers,
        "scale_embedding": config.embed_scale != 1,
        "is_encoder_decoder": True,
    }


def adjust(config: ModelConfig, tensors: Tensors) -> ModelConfig:
    """Gives the output layer a bias where the file has one that is not zero: it is a buffer, zero in most models."""
    if config.head != "lm" or _BIAS not in tensors.names:
        return config
    return config.replace(lm_bias=bool(np.any(tensors.read(_BIAS))))


def constants(config: ModelConfig) -> dict[str, np.ndarray]:
    """The zero bias that their class expects in a file where this model has none."""
    if config.head != "lm" or config.lm_bias:
        return {}
    return {_BIAS: np.zeros((1, config.vocab_size), np.float32)}


def repeats(config: ModelConfig) -> tuple[str, ...]:
    """Untied, their class reads the table once for each side; here both sides share it."""
    if config.head != "lm" or config.tied:
        return ()
    return f"{_BASE}encoder.embed_tokens.weight", f"{_BASE}decoder.embed_tokens.weight"


FAMILY = Family(
    model_type="bart",
    classes={
        "BartForConditionalGeneration": {"head": "lm"},
        "BartForSequenceClassification": {"head": "sequence", "pooling": "eos", "head_dense": True},
        "BartModel": {"head": "none"},
    },
    rows=rows,
    keys=(
        Key("vocab_size", "vocab_size", 50_265),
        Key("max_length", "max_position_embeddings", 1024),
        Key("d_model", "d_model", 1024, ("hidden_size",)),
        activation("activation_function", "gelu"),
        Key("embed_dropout", "dropout", 0.1),
        Key("residual_dropout", "dropout", 0.1),
        Key("attention_dropout", "attention_dropout", 0.0),
        Key("tied", "tie_word_embeddings", True),
        *identifiers(1, 0, 2),
        identifier("decoder_start", 2),
    ),
    fixed={
        "kind": "encoder_decoder",
        "norm": "layernorm",
        "norm_position": "post",
        "embed_norm": True,
        "final_norm": False,
        "positions": "learned",
        "position_offset": 2,
    },
    read=read,
    write=write,
    only={
        "is_encoder_decoder": (True,),
        "add_bias_logits": (False,),
        "add_final_layer_norm": (False,),
        "extra_pos_embeddings": (2,),
        "normalize_before": (False,),
        "normalize_embedding": (True,),
        "static_position_embeddings": (False,),
    },
    prefix=_BASE,
    copies=lambda config: {
        f"{_BASE}encoder.embed_tokens.weight": f"{_BASE}shared.weight",
        f"{_BASE}decoder.embed_tokens.weight": f"{_BASE}shared.weight",
        "lm_head.weight": f"{_BASE}shared.weight",
    },
    surplus=lambda config: (r"lm_head\.weight", r"final_logits_bias", r"classification_head\..*"),
    repeats=repeats,
    constants=constants,
    adjust=adjust,
)
