"""Small decoders taught by lessons, prompts and completions that a program writes without end."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import jax
import numpy as np

from experiments.trial import linear_decay, train
from research.data.packing import Example, Row, pack
from research.data.sentencepiece_tokenizer import SentencePieceTokenizer, train_sentencepiece
from research.data.templates import encode_completion
from research.models import Model, build, preset
from research.recipes.pretrain import language_model_loss

Lesson = tuple[str, str]
"""What a model is shown, and what it is to write behind it."""


def small_model(settings: Mapping[str, Any], tokenizer: SentencePieceTokenizer) -> Model:
    """A LLaMA-style decoder of these sizes over this vocabulary."""
    sizes = dict(settings)
    policy = sizes.pop("policy")
    ids = {"pad_id": tokenizer.pad_id, "bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id}
    return build(preset("llama-7b", vocab_size=tokenizer.vocab_size, **ids, **sizes), policy=policy, unroll=True)


def trained_tokenizer(lessons: Iterator[Lesson], settings: Mapping[str, Any]) -> SentencePieceTokenizer:
    """Pieces of the first `texts` lessons; digits stand alone."""
    texts = ["".join(lesson) for lesson in islice(lessons, settings["texts"])]
    return train_sentencepiece(texts, settings["vocab_size"], kind="bpe")


def packed(
    lessons: Iterator[Lesson], tokenizer: SentencePieceTokenizer, length: int, rows: int, prompt_weight: float
) -> Row:
    """So many rows filled with lessons in their order; in the loss a token of a prompt counts `prompt_weight`."""
    parts: list[Row] = []
    while sum(len(part["tokens"]) for part in parts) < rows:
        coded = [encode_completion(*lesson, tokenizer, boundary="separate") for lesson in islice(lessons, 512)]
        weighed = [Example(e.tokens, np.where(e.loss_mask, 1.0, prompt_weight).astype(np.float32)) for e in coded]
        parts.append(pack(weighed, length))
    return {name: np.concatenate([part[name] for part in parts])[:rows] for name in parts[0]}


def taught(
    model: Model, tokenizer: SentencePieceTokenizer, lessons: Iterator[Lesson], settings: Mapping[str, Any], seed: int
) -> tuple[Any, dict[str, Any]]:
    """Weights from scratch after so many steps of packed rows; and what was read, and what it cost."""
    steps, size, key = settings["steps"], settings["batch_size"], jax.random.key(seed)
    rows = packed(lessons, tokenizer, settings["length"], steps * size, settings["prompt_weight"])
    batches = [{name: array[i * size : (i + 1) * size] for name, array in rows.items()} for i in range(steps)]
    rule = linear_decay(settings["learning_rate"], steps, clip=1.0) | {"name": settings["optimizer"]}
    begun = jax.jit(model.init)(jax.random.fold_in(key, 0))
    params, costs = train(
        language_model_loss(model), begun, rule, batches, jax.random.fold_in(key, 1), policy=model.policy
    )
    read = {"lessons": int(rows["segment_ids"].max(axis=1).sum()), "tokens": int((rows["segment_ids"] > 0).sum())}
    return params, read | {name: costs[name] for name in ("steps", "loss", "trainable", "cpu_seconds")}
