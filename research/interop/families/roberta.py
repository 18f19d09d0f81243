"""RoBERTa: BERT's stack with positions that begin behind the padding row, and heads of its own.

Axis names as in `research/core/types.py`.
"""

from typing import Any

from research.interop.families.bert import FIXED, KEYS, POOLED, stack
from research.interop.family import Family, labels_head
from research.interop.hf_keys import Key, Reader, identifiers
from research.interop.table import Row, dense, norm
from research.models.config import ModelConfig


def rows(config: ModelConfig) -> list[Row]:
    """All weights."""
    body = stack("roberta.")
    if config.head in ("sequence", "scalar"):
        return [*body, *labels_head("classifier.dense", "classifier.out_proj", with_dense=True)]
    if config.head == "token":
        return [*body, *labels_head("", "classifier", with_dense=False)]
    if config.head == "none":
        return body
    return [
        *body,
        *dense("head/dense", "lm_head.dense"),
        *norm("head/norm", "lm_head.layer_norm"),
        # Untied, their output layer uses the bias of its own and the other one does nothing.
        Row(("head/bias",), "lm_head.bias" if config.tied else "lm_head.decoder.bias"),
        Row(("head/table/embedding",), "lm_head.decoder.weight"),
    ]


def read(reader: Reader) -> dict[str, Any]:
    """The table's first rows, up to the padding id, are never read as positions."""
    offset = int(reader.get("pad_token_id", 1)) + 1
    return {"position_offset": offset, "max_length": int(reader.get("max_position_embeddings", 512)) - offset}


def write(config: ModelConfig) -> dict[str, Any]:
    """All rows of the table, those before the first position included."""
    return {"max_position_embeddings": config.max_length + config.position_offset}


def copies(config: ModelConfig) -> dict[str, str]:
    """The output layer, which some files write although it is tied."""
    if not config.tied:
        return {}
    return {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }


FAMILY = Family(
    model_type="roberta",
    classes={
        "RobertaForMaskedLM": {"head": "mlm"},
        "RobertaForSequenceClassification": POOLED,
        "RobertaForTokenClassification": {"head": "token"},
        "RobertaModel": {"head": "none"},
    },
    rows=rows,
    keys=(
        *(key for key in KEYS if key.ours != "vocab_size"),
        Key("vocab_size", "vocab_size", 50_265),
        *identifiers(1, 0, 2),
    ),
    fixed=FIXED,
    read=read,
    write=write,
    # The MLM head applies GELU whatever the stack does, so only GELU makes the two the same.
    only={"position_embedding_type": ("absolute",), "hidden_act": ("gelu",)},
    prefix="roberta.",
    copies=copies,
    harmless=(r"(roberta\.)?embeddings\.(position_ids|token_type_ids)",),
    surplus=lambda config: (r"(roberta\.)?pooler\..*", r"lm_head\..*", r"classifier\..*"),
)
