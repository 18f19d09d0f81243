"""BERT: post-norm encoder with token types; its rows and keys also serve RoBERTa.

Axis names as in `research/core/types.py`.
"""

from research.interop.family import Family, labels_head
from research.interop.hf_keys import Key, activation, identifiers
from research.interop.table import Row, dense, norm
from research.models.config import ModelConfig

FIXED = {
    "kind": "encoder",
    "norm": "layernorm",
    "norm_position": "post",
    "embed_norm": True,
    "final_norm": False,
    "positions": "learned",
}
KEYS = (
    Key("vocab_size", "vocab_size", 30_522),
    Key("d_model", "hidden_size", 768),
    Key("n_layers", "num_hidden_layers", 12),
    Key("n_heads", "num_attention_heads", 12),
    Key("d_ff", "intermediate_size", 3072),
    activation("hidden_act", "gelu"),
    Key("norm_eps", "layer_norm_eps", 1e-12),
    Key("n_token_types", "type_vocab_size", 2),
    Key("embed_dropout", "hidden_dropout_prob", 0.1),
    Key("residual_dropout", "hidden_dropout_prob", 0.1),
    Key("attention_dropout", "attention_probs_dropout_prob", 0.1),
    Key("tied", "tie_word_embeddings", True),
)
POOLED = {"head": "sequence", "pooling": "first", "head_dense": True}


def stack(base: str) -> list[Row]:
    """The encoder under the given prefix ("bert." or "roberta.")."""
    layer, ours = f"{base}encoder.layer.{{l}}.", "encoder/layers/"
    return [
        Row(("embed/tokens/embedding",), f"{base}embeddings.word_embeddings.weight"),
        Row(("encoder/positions/embedding",), f"{base}embeddings.position_embeddings.weight"),
        Row(("encoder/types/embedding",), f"{base}embeddings.token_type_embeddings.weight"),
        *norm("encoder/embed_norm", f"{base}embeddings.LayerNorm"),
        *dense(f"{ours}attention/q", f"{layer}attention.self.query"),
        *dense(f"{ours}attention/k", f"{layer}attention.self.key"),
        *dense(f"{ours}attention/v", f"{layer}attention.self.value"),
        *dense(f"{ours}attention/o", f"{layer}attention.output.dense"),
        *norm(f"{ours}attention_norm", f"{layer}attention.output.LayerNorm"),
        *dense(f"{ours}mlp/up", f"{layer}intermediate.dense"),
        *dense(f"{ours}mlp/down", f"{layer}output.dense"),
        *norm(f"{ours}mlp_norm", f"{layer}output.LayerNorm"),
    ]


def rows(config: ModelConfig) -> list[Row]:
    """All weights; the pooler is the dense layer of a sequence head."""
    body = stack("bert.")
    if config.head in ("sequence", "scalar"):
        return [*body, *labels_head("bert.pooler.dense", "classifier", with_dense=True)]
    if config.head == "token":
        return [*body, *labels_head("", "classifier", with_dense=False)]
    if config.head == "none":
        return body
    return [
        *body,
        *dense("head/dense", "cls.predictions.transform.dense"),
        *norm("head/norm", "cls.predictions.transform.LayerNorm"),
        # Untied, their output layer uses the bias of its own and the other one does nothing.
        Row(("head/bias",), "cls.predictions.bias" if config.tied else "cls.predictions.decoder.bias"),
        Row(("head/table/embedding",), "cls.predictions.decoder.weight"),
    ]


def copies(config: ModelConfig) -> dict[str, str]:
    """The output layer, which some files write although it is tied."""
    if not config.tied:
        return {}
    return {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }


FAMILY = Family(
    model_type="bert",
    classes={
        "BertForMaskedLM": {"head": "mlm"},
        "BertForPreTraining": {"head": "mlm"},
        "BertForSequenceClassification": POOLED,
        "BertForTokenClassification": {"head": "token"},
        "BertModel": {"head": "none"},
    },
    rows=rows,
    keys=(*KEYS, Key("max_length", "max_position_embeddings", 512), *identifiers(0, None, None)),
    fixed=FIXED,
    only={"position_embedding_type": ("absolute",)},
    prefix="bert.",
    copies=copies,
    harmless=(r"(bert\.)?embeddings\.(position_ids|token_type_ids)",),
    surplus=lambda config: (r"(bert\.)?pooler\..*", r"cls\..*", r"classifier\..*"),
    renames=((r"(.*LayerNorm\.)gamma", r"\1weight"), (r"(.*LayerNorm\.)beta", r"\1bias")),
)
