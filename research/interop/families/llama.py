"""LLaMA 1, 2 and 3; its rows and keys also serve Mistral, Qwen and Gemma.

Axis names as in `research/core/types.py`.
"""

from typing import Any

from research.interop.family import Family, decoder_classes, decoder_head
from research.interop.hf_keys import Key, Reader, activation, identifiers
from research.interop.hf_rope import read_rope, write_rope
from research.interop.table import Row, dense, norm
from research.models.config import ModelConfig

BASE = "model."
_LAYER = f"{BASE}layers.{{l}}."
_OURS = "decoder/layers/"

FIXED = {
    "kind": "decoder",
    "norm": "rmsnorm",
    "norm_position": "pre",
    "positions": "rope",
    "gated": True,
    "attention_bias": False,
    "attention_out_bias": False,
    "mlp_bias": False,
}
HARMLESS = (r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)


def copies(config: ModelConfig) -> dict[str, str]:
    """The output layer, which some files write although it is tied."""
    return {"lm_head.weight": f"{BASE}embed_tokens.weight"}


def surplus(config: ModelConfig) -> tuple[str, ...]:
    """Weights of other heads."""
    return r"lm_head\.weight", r"score\..*"


def keys(vocabulary: int, tied: bool, act: Key) -> tuple[Key, ...]:
    """The keys that all families of this kind share."""
    return (
        Key("vocab_size", "vocab_size", vocabulary),
        Key("d_model", "hidden_size"),
        Key("n_layers", "num_hidden_layers"),
        Key("n_heads", "num_attention_heads"),
        Key("n_kv_heads", "num_key_value_heads", 0),
        Key("head_dim", "head_dim", 0),
        Key("d_ff", "intermediate_size"),
        act,
        Key("norm_eps", "rms_norm_eps", 1e-6),
        Key("attention_dropout", "attention_dropout", 0.0),
        Key("tied", "tie_word_embeddings", tied),
    )


SILU = activation("hidden_act", "silu")
BIASES = (Key("attention_bias", "attention_bias", False), Key("attention_out_bias", "attention_bias", False))


def stack(config: ModelConfig) -> list[Row]:
    """All weights but the norms of a block."""
    return [
        Row(("embed/tokens/embedding",), f"{BASE}embed_tokens.weight"),
        *dense(f"{_OURS}attention/q", f"{_LAYER}self_attn.q_proj"),
        *dense(f"{_OURS}attention/k", f"{_LAYER}self_attn.k_proj"),
        *dense(f"{_OURS}attention/v", f"{_LAYER}self_attn.v_proj"),
        *dense(f"{_OURS}attention/o", f"{_LAYER}self_attn.o_proj"),
        *norm(f"{_OURS}attention/q_norm", f"{_LAYER}self_attn.q_norm"),
        *norm(f"{_OURS}attention/k_norm", f"{_LAYER}self_attn.k_norm"),
        *dense(f"{_OURS}mlp/gate", f"{_LAYER}mlp.gate_proj"),
        *dense(f"{_OURS}mlp/up", f"{_LAYER}mlp.up_proj"),
        *dense(f"{_OURS}mlp/down", f"{_LAYER}mlp.down_proj"),
        *norm("decoder/final_norm", f"{BASE}norm"),
        *decoder_head(config, token="score"),
    ]


def rows(config: ModelConfig) -> list[Row]:
    """All weights, with a norm before each sublayer."""
    return [
        *stack(config),
        *norm(f"{_OURS}attention_norm", f"{_LAYER}input_layernorm"),
        *norm(f"{_OURS}mlp_norm", f"{_LAYER}post_attention_layernorm"),
    ]


def sandwich_rows(config: ModelConfig) -> list[Row]:
    """All weights, with norms before and after each sublayer (Gemma)."""
    return [
        *stack(config),
        *norm(f"{_OURS}attention_norm", f"{_LAYER}input_layernorm"),
        *norm(f"{_OURS}attention_post_norm", f"{_LAYER}post_attention_layernorm"),
        *norm(f"{_OURS}mlp_norm", f"{_LAYER}pre_feedforward_layernorm"),
        *norm(f"{_OURS}mlp_post_norm", f"{_LAYER}post_feedforward_layernorm"),
    ]


def read(reader: Reader) -> dict[str, Any]:
    """The rotary settings."""
    return read_rope(reader, 10_000.0)


FAMILY = Family(
    model_type="llama",
    classes=decoder_classes("Llama"),
    rows=rows,
    keys=(*keys(32_000, False, SILU), *BIASES, Key("mlp_bias", "mlp_bias", False), *identifiers(None, 1, 2)),
    fixed={key: value for key, value in FIXED.items() if not key.endswith("bias")},
    read=read,
    write=write_rope,
    prefix=BASE,
    copies=copies,
    harmless=HARMLESS,
    surplus=surplus,
)
