"""T5, T5 v1.1 and FLAN-T5: RMSNorm, relative bias held by the first layer, no attention scaling.

Axis names as in `research/core/types.py`.
"""

from typing import Any

import numpy as np

from research.interop.family import Family, labels_head
from research.interop.folder import Tensors
from research.interop.hf_keys import Key, Reader, identifier, identifiers, read_activation
from research.interop.table import Row, dense, norm
from research.models.config import ModelConfig

_OUTPUT = "lm_head.weight"


def _attention(ours: str, theirs: str) -> list[Row]:
    return [row for part in "qkvo" for row in dense(f"{ours}/{part}", f"{theirs}.{part}")]


def _mlp(ours: str, theirs: str, gated: bool) -> list[Row]:
    names = [("gate", "wi_0"), ("up", "wi_1")] if gated else [("up", "wi")]
    names.append(("down", "wo"))
    return [row for a, b in names for row in dense(f"{ours}/{a}", f"{theirs}.DenseReluDense.{b}")]


def _stack(side: str, base: str, gated: bool) -> list[Row]:
    layer, ours = f"{base}{side}.block.{{l}}.layer.", f"{side}/layers/"
    first = f"{base}{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    last = 2 if side == "decoder" else 1
    return [
        Row((f"{side}/relative/embedding",), first),
        *_attention(f"{ours}attention", f"{layer}0.SelfAttention"),
        *norm(f"{ours}attention_norm", f"{layer}0.layer_norm"),
        *_attention(f"{ours}cross", f"{layer}1.EncDecAttention"),
        *norm(f"{ours}cross_norm", f"{layer}1.layer_norm"),
        *_mlp(f"{ours}mlp", f"{layer}{last}", gated),
        *norm(f"{ours}mlp_norm", f"{layer}{last}.layer_norm"),
        *norm(f"{side}/final_norm", f"{base}{side}.final_layer_norm"),
    ]


def rows(config: ModelConfig) -> list[Row]:
    """All weights; classes with labels put the bare model under "transformer."."""
    base = "transformer." if config.head in ("sequence", "token", "scalar") else ""
    body = [
        Row(("embed/tokens/embedding",), f"{base}shared.weight"),
        *_stack("encoder", base, config.gated),
        *_stack("decoder", base, config.gated),
    ]
    if config.head == "lm":
        return [*body, Row(("head/table/embedding",), _OUTPUT)]
    if config.head == "token":
        return [*body, *labels_head("", "classifier", with_dense=False)]
    heads = labels_head("classification_head.dense", "classification_head.out_proj", with_dense=True)
    return body if config.head == "none" else [*body, *heads]


def read(reader: Reader) -> dict[str, Any]:
    """Depths, the feed-forward layer, and whether the features are scaled before the output layer.

    transformers 4 scales where `tie_word_embeddings` is true; transformers 5 always writes true and keeps the
    scaling under `scale_decoder_outputs`.
    """
    name = str(reader.get("feed_forward_proj", "relu"))
    gated, act = name.startswith("gated-"), name.removeprefix("gated-")
    # "gated-gelu" has always meant the tanh form.
    act = "gelu_new" if name == "gated-gelu" else act
    reader.only("dense_act_fn", act)
    reader.only("is_gated_act", gated)
    layers = int(reader.get("num_layers", 6, also=("num_hidden_layers",)))
    tied = bool(reader.get("tie_word_embeddings", True))
    scaled = bool(reader.get("scale_decoder_outputs", tied))
    return {
        "n_encoder_layers": layers,
        "n_layers": int(reader.get("num_decoder_layers", layers)),
        "activation": read_activation(act),
        "gated": gated,
        "tied": tied,
        "logit_scale": float(reader.get("d_model", 512)) ** -0.5 if scaled else 1.0,
    }


def write(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `read`."""
    act = {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation)
    name = ("gated-gelu" if act == "gelu_new" else f"gated-{act}") if config.gated else act
    return {
        "num_layers": config.n_encoder_layers if config.kind == "encoder_decoder" else config.n_layers,
        "num_decoder_layers": config.n_layers,
        "feed_forward_proj": name,
        "dense_act_fn": act,
        "is_gated_act": config.gated,
        "tie_word_embeddings": config.tied,
        "scale_decoder_outputs": config.logit_scale != 1,
        "is_encoder_decoder": config.kind == "encoder_decoder",
    }


def adjust(config: ModelConfig, tensors: Tensors) -> ModelConfig:
    """Unties the output layer where the file holds another one: transformers 5 writes "tied" for every T5."""
    if config.head != "lm" or not config.tied or not {_OUTPUT, "shared.weight"} <= set(tensors.names):
        return config
    same = np.array_equal(tensors.read(_OUTPUT), tensors.read("shared.weight"))
    return config if same else config.replace(tied=False)


def surplus(config: ModelConfig) -> tuple[str, ...]:
    """Weights of other heads; for an encoder alone, the decoder."""
    heads = (r"lm_head\.weight", r"classification_head\..*", r"classifier\..*")
    return heads if config.kind == "encoder_decoder" else (*heads, r"(transformer\.)?decoder\..*")


FAMILY = Family(
    model_type="t5",
    classes={
        "T5ForConditionalGeneration": {"head": "lm", "kind": "encoder_decoder"},
        "T5ForSequenceClassification": {
            "head": "sequence",
            "kind": "encoder_decoder",
            "pooling": "eos",
            "head_dense": True,
        },
        "T5ForTokenClassification": {"head": "token", "kind": "encoder"},
        "T5Model": {"head": "none", "kind": "encoder_decoder"},
        "T5EncoderModel": {"head": "none", "kind": "encoder"},
    },
    rows=rows,
    prefix="transformer.",
    keys=(
        Key("vocab_size", "vocab_size", 32_128),
        # Relative positions have no table: the length trained on is kept under the name that T5's own files use.
        Key("max_length", "n_positions", 512),
        Key("d_model", "d_model", 512, ("hidden_size",)),
        Key("head_dim", "d_kv", 64),
        Key("d_ff", "d_ff", 2048),
        Key("n_heads", "num_heads", 8, ("num_attention_heads",)),
        Key("relative_buckets", "relative_attention_num_buckets", 32),
        Key("relative_distance", "relative_attention_max_distance", 128),
        Key("norm_eps", "layer_norm_epsilon", 1e-6),
        Key("embed_dropout", "dropout_rate", 0.1),
        Key("residual_dropout", "dropout_rate", 0.1),
        Key("attention_dropout", "dropout_rate", 0.1),
        *identifiers(0, None, 1),
        identifier("decoder_start", 0),
    ),
    fixed={
        "norm": "rmsnorm",
        "norm_position": "pre",
        "positions": "relative",
        "attention_scale": 1.0,
        "attention_bias": False,
        "attention_out_bias": False,
        "mlp_bias": False,
        "init_std": 0.0,
    },
    read=read,
    write=write,
    only={"is_encoder_decoder": (True, False)},
    copies=lambda config: {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
        "transformer.encoder.embed_tokens.weight": "transformer.shared.weight",
        "transformer.decoder.embed_tokens.weight": "transformer.shared.weight",
        _OUTPUT: "shared.weight",
    },
    # An early conversion wrote a second, never used table into the decoder.
    harmless=(r"(transformer\.)?decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
    surplus=surplus,
)
