"""GPT-2: fused query, key and value; Conv1D kernels, which are [in, out] as ours are.

Axis names as in `research/core/types.py`.
"""

from research.interop.family import Family, decoder_head
from research.interop.hf_keys import Key, Reader, activation, identifiers
from research.interop.table import SAME, Row, dense, joined, norm
from research.models.config import ModelConfig

_BASE = "transformer."
_LAYER = f"{_BASE}h.{{l}}."
_OURS = "decoder/layers/"


def _qkv(leaf: str) -> tuple[str, ...]:
    return tuple(f"{_OURS}attention/{part}/{leaf}" for part in "qkv")


def rows(config: ModelConfig) -> list[Row]:
    """All weights."""
    return [
        Row(("embed/tokens/embedding",), f"{_BASE}wte.weight"),
        Row(("decoder/positions/embedding",), f"{_BASE}wpe.weight"),
        *norm(f"{_OURS}attention_norm", f"{_LAYER}ln_1"),
        Row(_qkv("kernel"), f"{_LAYER}attn.c_attn.weight", joined(3)),
        Row(_qkv("bias"), f"{_LAYER}attn.c_attn.bias", joined(3)),
        *dense(f"{_OURS}attention/o", f"{_LAYER}attn.c_proj", kernel=SAME),
        *norm(f"{_OURS}mlp_norm", f"{_LAYER}ln_2"),
        *dense(f"{_OURS}mlp/up", f"{_LAYER}mlp.c_fc", kernel=SAME),
        *dense(f"{_OURS}mlp/down", f"{_LAYER}mlp.c_proj", kernel=SAME),
        *norm("decoder/final_norm", f"{_BASE}ln_f"),
        *decoder_head(config, token="classifier"),
    ]


def read(reader: Reader) -> dict[str, int]:
    """The feed-forward width, four times the model's unless `n_inner` says otherwise."""
    return {"d_ff": int(reader.get("n_inner", 4 * int(reader.get("n_embd", 768))))}


def write(config: ModelConfig) -> dict[str, int]:
    """`n_inner`, always spelled out."""
    return {"n_inner": config.d_ff}


FAMILY = Family(
    model_type="gpt2",
    classes={
        "GPT2LMHeadModel": {"head": "lm"},
        "GPT2ForSequenceClassification": {"head": "sequence", "head_bias": False, "pooling": "last"},
        "GPT2ForTokenClassification": {"head": "token"},
        "GPT2Model": {"head": "none"},
    },
    rows=rows,
    keys=(
        Key("vocab_size", "vocab_size", 50_257),
        Key("max_length", "n_positions", 1024, ("max_position_embeddings", "n_ctx")),
        Key("d_model", "n_embd", 768, ("hidden_size",)),
        Key("n_layers", "n_layer", 12, ("num_hidden_layers",)),
        Key("n_heads", "n_head", 12, ("num_attention_heads",)),
        activation("activation_function", "gelu_new"),
        Key("norm_eps", "layer_norm_epsilon", 1e-5),
        Key("embed_dropout", "embd_pdrop", 0.1),
        Key("residual_dropout", "resid_pdrop", 0.1),
        Key("attention_dropout", "attn_pdrop", 0.1),
        Key("tied", "tie_word_embeddings", True),
        *identifiers(None, 50_256, 50_256),
    ),
    fixed={"kind": "decoder", "norm": "layernorm", "norm_position": "pre", "positions": "learned"},
    read=read,
    write=write,
    only={"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)},
    prefix=_BASE,
    copies=lambda config: {"lm_head.weight": f"{_BASE}wte.weight"},
    harmless=(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",),
    surplus=lambda config: (r"lm_head\.weight", r"score\.weight", r"classifier\..*"),
)
