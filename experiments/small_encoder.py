"""A small encoder made from documents alone: their titles find their texts, their sentences the text around them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from experiments.trial import linear_decay, train
from research.data import python_docs
from research.data.huggingface_tokenizer import HuggingFaceTokenizer
from research.data.instructions import summary_and_body
from research.decoding.embedder import Embedder
from research.models import build, preset
from research.recipes.contrastive import contrastive_loss, pair_batch

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
SHORTEST = 40  # characters of a text that a title can be told by
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


class Titled(NamedTuple):
    """A text and what it is about in one line."""

    title: str
    text: str


def python_pairs(held_out: float) -> tuple[list[Titled], list[Titled]]:
    """(training, held-out) docstrings, their first paragraphs as titles, and topics of the language reference.

    Of equal texts the first stays; the side is decided by the text alone.
    """
    found = [Titled(document.name.partition(":")[2], document.text) for document in python_docs.topics()]
    found += [Titled(*summary_and_body(function.docstring)) for function in python_docs.functions()]
    once = {pair.text: pair for pair in reversed(found) if pair.title and len(pair.text) >= SHORTEST}
    sides: tuple[list[Titled], list[Titled]] = ([], [])
    for pair in reversed(once.values()):
        sides[python_docs.is_heldout(pair.text, held_out)].append(pair)
    return sides


def drawn(pair: Titled, rng: np.random.Generator) -> tuple[str, str]:
    """A query and its passage: title and text, or as often a sentence and the rest (the inverse cloze task).

    See *Latent Retrieval for Weakly Supervised Open Domain Question Answering*, https://arxiv.org/abs/1906.00300; as
    there, the sentence stays in the passage one time in ten. A text of one sentence always goes with its title.
    """
    sentences = [part for part in _SENTENCE.split(pair.text) if len(part.split()) > 3]
    if len(sentences) < 2 or (pair.title and rng.random() < 0.5):
        return pair.title, pair.text
    chosen = sentences[rng.integers(len(sentences))]
    rest = pair.text if rng.random() < 0.1 else pair.text.replace(chosen, " ", 1)
    return chosen, f"{pair.title}\n{rest}"


def train_wordpiece(texts: Sequence[str], vocab_size: int) -> HuggingFaceTokenizer:
    """A lower-case WordPiece that frames texts as BERT's does."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL.values()), show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    ends = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return HuggingFaceTokenizer(made, SPECIAL)


def fit(config: Mapping[str, Any], pairs: Sequence[Titled], seed: int) -> tuple[Embedder, dict[str, Any]]:
    """An encoder from scratch that learned `drawn` pairs by `recipes.contrastive`, and what that cost.

    Raises:
      ValueError: fewer pairs than one batch.
    """
    tokenizer = train_wordpiece([part for pair in pairs for part in pair], config["vocab_size"])
    described = preset("minilm-l6").replace(
        vocab_size=tokenizer.vocab_size, max_length=max(config["lengths"]), head="none", **config["model"]
    )
    model = build(described, policy=config["policy"], unroll=True)
    embedder = Embedder(model, jax.jit(model.init)(jax.random.key(seed)), tokenizer, described.max_length)
    return tune(embedder, config, pairs, seed)


def tune(
    embedder: Embedder, config: Mapping[str, Any], pairs: Sequence[Titled], seed: int
) -> tuple[Embedder, dict[str, Any]]:
    """An embedder that learned `drawn` pairs in `steps` batches of `batch_size`, and what that cost."""
    loss_fn = contrastive_loss(embedder.model, pooling=embedder.pooling, temperature=config["temperature"])
    batches = batches_of(embedder, config, pairs, np.random.default_rng(seed))
    rule = linear_decay(config["learning_rate"], len(batches), clip=1.0)
    key = jax.random.fold_in(jax.random.key(seed), 1)
    params, costs = train(loss_fn, embedder.params, rule, batches, key, policy=embedder.model.policy)
    made = Embedder(embedder.model, params, embedder.tokenizer, embedder.length, embedder.pooling)
    return made, costs


def batches_of(
    embedder: Embedder, config: Mapping[str, Any], pairs: Sequence[Titled], rng: np.random.Generator
) -> list[dict[str, np.ndarray]]:
    """As many batches as there are steps, epoch after epoch; texts of one title are no negatives of each other."""
    size, lengths = config["batch_size"], tuple(config["lengths"])
    if len(pairs) < size:
        raise ValueError(f"{len(pairs)} titled texts make no batch of {size}: give more documents or a smaller batch")
    titles = {title: i for i, title in enumerate(dict.fromkeys(pair.title for pair in pairs))}
    found: list[dict[str, np.ndarray]] = []
    while len(found) < config["steps"]:
        order = rng.permutation(len(pairs))
        for start in range(0, len(pairs) - size + 1, size):
            chosen = [pairs[i] for i in order[start : start + size]]
            queries, passages = zip(*(drawn(pair, rng) for pair in chosen), strict=True)
            # Cut before they are split into tokens: a row holds no more characters than this.
            passages = [[embedder.encode(passage[: 16 * lengths[1]])] for passage in passages]
            groups = [titles[pair.title] for pair in chosen]
            found.append(pair_batch([embedder.encode(q) for q in queries], passages, lengths, groups=groups))
    return found[: config["steps"]]
