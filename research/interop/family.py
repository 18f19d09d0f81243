"""What a family's file declares: names of weights, keys of config.json, classes, and what may be left unread."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from research.interop.folder import Tensors
from research.interop.hf_keys import Key, Reader
from research.interop.table import Row, dense
from research.models.config import ModelConfig


@dataclass(frozen=True)
class Family:
    """How one `model_type` of Hugging Face is written.

    Attributes:
      model_type: the value in config.json, and our `ModelConfig.family`.
      classes: their class -> the fields it implies, `head` among them; the first that fits is written.
      rows: the table of weights, given the configuration (whose head decides the head's rows).
      keys: fields of ModelConfig that are one key of config.json.
      fixed: fields that every model of the family has.
      read, write: the fields that are more than one key, both ways.
      only: keys that must have one of the given values.
      prefix: what a class with a head puts before the names of the bare model.
      copies: names of tensors that repeat another one and must equal it, given the configuration.
      repeats: those copies that must be written, as their class reads each by itself.
      harmless: patterns of names that hold no weight (masks, frequencies).
      surplus: patterns of weights that no model here has (another head); reported as unread.
      renames: (pattern, replacement) for the spelling of older files.
      constants: buffers that a file carries and that this model keeps at a constant.
      adjust: changes the configuration by what the file holds.
    """

    model_type: str
    classes: Mapping[str, Mapping[str, Any]]
    rows: Callable[[ModelConfig], Sequence[Row]]
    keys: Sequence[Key]
    fixed: Mapping[str, Any]
    read: Callable[[Reader], dict[str, Any]] = lambda reader: {}
    write: Callable[[ModelConfig], dict[str, Any]] = lambda config: {}
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    prefix: str = ""
    copies: Callable[[ModelConfig], Mapping[str, str]] = lambda config: {}
    repeats: Callable[[ModelConfig], Sequence[str]] = lambda config: ()
    harmless: Sequence[str] = ()
    surplus: Callable[[ModelConfig], Sequence[str]] = lambda config: ()
    renames: Sequence[tuple[str, str]] = ()
    constants: Callable[[ModelConfig], Mapping[str, np.ndarray]] = lambda config: {}
    adjust: Callable[[ModelConfig, Tensors], ModelConfig] = lambda config, tensors: config


def decoder_classes(name: str) -> dict[str, dict[str, Any]]:
    """The classes of a decoder-only family: scores of the last token, and of every token."""
    both: dict[str, dict[str, Any]] = {
        f"{name}ForSequenceClassification": {"head": "sequence", "head_bias": False, "pooling": "last"},
        f"{name}ForTokenClassification": {"head": "token"},
    }
    return {f"{name}ForCausalLM": {"head": "lm"}, **both, f"{name}Model": {"head": "none"}}


def decoder_head(config: ModelConfig, *, token: str) -> list[Row]:
    """The rows of a decoder-only family's head; `token` names the scores of token classification."""
    if config.head == "lm":
        return [] if config.tied else [Row(("head/table/embedding",), "lm_head.weight")]
    if config.head == "none":
        return []
    return dense("head/output", token if config.head == "token" else "score")


def labels_head(dense_name: str, output_name: str, *, with_dense: bool) -> list[Row]:
    """The rows of a label head: a dense layer where there is one, then the scores."""
    return [*(dense("head/dense", dense_name) if with_dense else []), *dense("head/output", output_name)]
