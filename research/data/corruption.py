"""Objectives as changes of a row: masked LM, prefix LM, span corruption and denoising, all drawn from a generator.

Encoder-decoder rows have `inputs, input_segment_ids, input_positions` [S] for the encoder and `tokens` (the targets
shifted right behind the start token), `targets, loss_mask, segment_ids, positions` [T] for the decoder.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from .corpus import TokenCorpus
from .denoising import delete_tokens, infill, mask_tokens, permute_sentences, sentence_end_table
from .packing import Row, empty_row, first_fit
from .spans import (
    corrupted_lengths,
    noise_span_to_unique_sentinel,
    nonnoise_span_to_unique_sentinel,
    random_spans_noise_mask,
)


def masked_lm(
    tokens: np.ndarray,
    maskable: np.ndarray,
    rng: np.random.Generator,
    *,
    mask_id: int,
    replacements: np.ndarray,
    rate: float = 0.15,
    word_starts: np.ndarray | None = None,
) -> Row:
    """BERT's masking: of the chosen tokens 80 % become `mask_id`, 10 % a random token, 10 % stay.

    Args:
      tokens, maskable: [T]; only tokens with `maskable` are chosen (never special ones or padding).
      replacements: ids from which the random tokens come.
      rate: share of the maskable tokens, at least one where there is any.
      word_starts: [T] boolean; given, whole words are chosen.
    Returns: `tokens` (damaged), `targets` (the originals), `loss_mask` [T]. See arXiv:1810.04805.
    """
    candidates = np.flatnonzero(maskable)
    wanted = max(1, round(rate * len(candidates))) if len(candidates) else 0
    if word_starts is None:
        chosen = rng.choice(candidates, wanted, replace=False) if wanted else candidates
    else:
        chosen = _whole_words(candidates, word_starts, wanted, rng)
    action = rng.random(len(chosen))
    damaged = np.array(tokens, np.int32)
    damaged[chosen[action < 0.8]] = mask_id
    random = chosen[action >= 0.9]
    damaged[random] = rng.choice(replacements, len(random))
    loss_mask = np.zeros(len(damaged), np.float32)
    loss_mask[chosen] = 1.0
    return {"tokens": damaged, "targets": np.array(tokens, np.int32), "loss_mask": loss_mask}


def _whole_words(candidates: np.ndarray, word_starts: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Words in random order while they fit into `wanted` tokens (the first one even if it does not)."""
    # A gap (a special token between two pieces) ends a word too.
    breaks = word_starts[candidates] | (np.diff(candidates, prepend=-2) != 1)
    words = np.split(candidates, np.flatnonzero(breaks)[1:]) if len(candidates) else []
    chosen: list[np.ndarray] = []
    total = 0
    for i in rng.permutation(len(words)):
        if total and total + len(words[i]) > wanted:
            continue
        chosen.append(words[i])
        total += len(words[i])
        if total >= wanted:
            break
    return np.sort(np.concatenate(chosen)) if chosen else candidates[:0]


class MaskedLM:
    """Row transform for `MappedRows`: masked LM with a tokenizer's mask token and word starts."""

    def __init__(self, tokenizer, *, rate: float = 0.15, whole_word: bool = False):
        if tokenizer.mask_id is None:
            raise ValueError("masked LM needs a tokenizer with a mask token (<mask> or [MASK]); this one has none")
        self._tokenizer, self._rate, self._whole_word = tokenizer, rate, whole_word
        self._special = np.zeros(tokenizer.vocab_size, bool)
        self._special[sorted({*tokenizer.special_ids, tokenizer.mask_id})] = True
        self._replacements = np.flatnonzero(~self._special).astype(np.int32)

    def __call__(self, row: Row, rng: np.random.Generator) -> Row:
        tokens, segments = row["tokens"], row["segment_ids"]
        maskable = (segments > 0) & ~self._special[tokens]
        starts = None
        if self._whole_word:
            starts = self._tokenizer.word_starts(tokens)
            starts[1:] |= segments[1:] != segments[:-1]
        masked = masked_lm(
            tokens,
            maskable,
            rng,
            mask_id=self._tokenizer.mask_id,
            replacements=self._replacements,
            rate=self._rate,
            word_starts=starts,
        )
        return {**row, **masked}


def prefix_row(tokens: Sequence[int], prefix: int, length: int, *, start_id: int | None = None, pad_id: int = 0) -> Row:
    """One document whose first `prefix` tokens are seen at once and not predicted.

    With `start_id` the row begins with it (T5's decoder-only form: the last token is only a target). `horizon` [T] is
    the last position each query may see: max(position, prefix - 1), the start token counted in.
    """
    ids = np.asarray([*([] if start_id is None else [start_id]), *tokens], np.int32)
    seen = prefix + (start_id is not None)
    n = min(len(ids) - (start_id is not None), length)
    row = empty_row(length, pad_id)
    pairs = min(len(ids) - 1, n)
    at = np.arange(length)
    row["tokens"][:n], row["targets"][:pairs] = ids[:n], ids[1 : pairs + 1]
    row["positions"] = np.where(at < n, at, 0).astype(np.int32)
    row["segment_ids"][:n] = 1
    row["loss_mask"] = ((at + 1 >= seen) & (at < pairs)).astype(np.float32)
    row["horizon"] = np.where(at < n, np.maximum(at, seen - 1), 0).astype(np.int32)
    return row


def prefix_lm(row: Row, rng: np.random.Generator) -> Row:
    """Row transform: each document of a packed row gets a random prefix that is seen at once and not predicted."""
    segments, positions = row["segment_ids"], row["positions"]
    lengths = np.bincount(segments, minlength=int(segments.max(initial=0)) + 1)
    prefixes = 1 + (rng.random(len(lengths)) * np.maximum(lengths - 1, 0)).astype(np.int64)
    return _with_prefix(row, prefixes[segments] * (segments > 0), positions)


def prompt_as_prefix(row: Row, rng: np.random.Generator | None = None) -> Row:
    """Row transform: the part of each document before its first predicted token becomes the prefix."""
    del rng
    segments, positions = row["segment_ids"], row["positions"]
    lengths = np.bincount(segments, minlength=int(segments.max(initial=0)) + 1)
    prefixes = lengths.copy()
    supervised = row["loss_mask"] > 0
    # Position t predicts t + 1: the prefix reaches up to and including t.
    np.minimum.at(prefixes, segments[supervised], positions[supervised] + 1)
    return _with_prefix(row, prefixes[segments] * (segments > 0), positions)


def _with_prefix(row: Row, prefix: np.ndarray, positions: np.ndarray) -> Row:
    horizon = np.maximum(positions, prefix - 1).astype(np.int32)
    loss_mask = row["loss_mask"] * (positions + 1 >= prefix)
    return {**row, "horizon": horizon, "loss_mask": loss_mask.astype(np.float32)}


class PairCorruption(Protocol):
    """A text becomes (encoder inputs, decoder targets)."""

    def lengths(self, length: int) -> tuple[int, int]:
        """Room that a text of `length` tokens needs on both sides."""

    def __call__(self, tokens: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]: ...


class SpanCorruption:
    """T5's objective: noise spans become sentinels in the inputs, the targets spell the spans out."""

    def __init__(
        self, sentinels: Sequence[int], *, density: float = 0.15, mean_span: float = 3.0, eos_id: int | None = None
    ):
        if not 0 < density < 1:
            raise ValueError(f"density must lie between 0 and 1, got {density}")
        self._sentinels, self._density, self._mean = list(sentinels), density, mean_span
        self._end = np.array([] if eos_id is None else [eos_id], np.int32)

    def lengths(self, length: int) -> tuple[int, int]:
        return corrupted_lengths(length, self._density, self._mean, ends=len(self._end))

    def __call__(self, tokens: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        mask = random_spans_noise_mask(len(tokens), self._density, self._mean, rng)
        inputs = noise_span_to_unique_sentinel(tokens, mask, self._sentinels)
        targets = nonnoise_span_to_unique_sentinel(tokens, mask, self._sentinels)
        return np.append(inputs, self._end), np.append(targets, self._end)


class Denoising:
    """BART's objective: sentences permuted, spans infilled (also masking, deletion); the target is the text."""

    def __init__(
        self,
        tokenizer,
        *,
        infill_rate: float = 0.3,
        mean_span: float = 3.0,
        permute: bool = True,
        mask_rate: float = 0.0,
        delete_rate: float = 0.0,
    ):
        if tokenizer.mask_id is None:
            raise ValueError("denoising needs a tokenizer with a mask token (<mask> or [MASK]); this one has none")
        self._mask_id, self._permute = tokenizer.mask_id, permute
        self._infill, self._mean = infill_rate, mean_span
        self._mask_rate, self._delete = mask_rate, delete_rate
        self._ends = sentence_end_table(tokenizer) if permute else None
        self._end = np.array([] if tokenizer.eos_id is None else [tokenizer.eos_id], np.int32)

    def lengths(self, length: int) -> tuple[int, int]:
        return length + len(self._end), length + len(self._end)

    def __call__(self, tokens: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        damaged = permute_sentences(tokens, self._ends, rng) if self._ends is not None else tokens
        damaged = delete_tokens(damaged, self._delete, rng) if self._delete else damaged
        damaged = mask_tokens(damaged, self._mask_rate, self._mask_id, rng) if self._mask_rate else damaged
        damaged = infill(damaged, self._infill, self._mask_id, rng, mean_span=self._mean) if self._infill else damaged
        return np.append(damaged, self._end), np.append(tokens, self._end)


def pack_pairs(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    inputs_length: int,
    targets_length: int,
    *,
    decoder_start_id: int,
    pad_id: int = 0,
) -> Row:
    """One encoder-decoder row of several (inputs, targets); pair k is segment k on both sides."""
    row = empty_row(targets_length, pad_id)
    row["inputs"] = np.full(inputs_length, pad_id, np.int32)
    row["input_segment_ids"] = np.zeros(inputs_length, np.int32)
    row["input_positions"] = np.zeros(inputs_length, np.int32)
    a = b = 0
    for k, (inputs, targets) in enumerate(pairs, start=1):
        n, m = len(inputs), len(targets)
        if a + n > inputs_length or b + m > targets_length:
            raise ValueError(f"pair {k} of {n} + {m} tokens does not fit a row of {inputs_length} + {targets_length}")
        encoder, decoder = slice(a, a + n), slice(b, b + m)
        row["inputs"][encoder], row["input_segment_ids"][encoder] = inputs, k
        row["input_positions"][encoder] = np.arange(n)
        row["tokens"][decoder] = np.concatenate([[decoder_start_id], targets])[:m]
        row["targets"][decoder], row["loss_mask"][decoder] = targets, 1.0
        row["segment_ids"][decoder], row["positions"][decoder] = k, np.arange(m)
        a, b = a + n, b + m
    return row


class CorruptedPairRows:
    """Encoder-decoder rows from a corpus: pieces of documents, packed by the room their corruption needs.

    The room depends on a piece's length alone, so the plan is made once and each epoch damages the text anew.
    Documents are cut into pieces of at most `piece_length` tokens; pieces of fewer than two tokens are left out, and
    so are the special tokens that frame a document.
    """

    def __init__(
        self,
        corpus: TokenCorpus,
        corruption: PairCorruption,
        inputs_length: int,
        targets_length: int,
        *,
        piece_length: int,
        decoder_start_id: int,
        pad_id: int = 0,
        special_ids: Iterable[int] = (),
    ):
        self._corpus, self._corruption = corpus, corruption
        self._shape = inputs_length, targets_length
        self._ids = {"decoder_start_id": decoder_start_id, "pad_id": pad_id}
        self._special = np.array(sorted(special_ids), np.int64)
        lengths = corpus.lengths
        self._pieces = [
            (d, start, min(piece_length, int(n) - start))
            for d, n in enumerate(lengths)
            for start in range(0, int(n), piece_length)
            if min(piece_length, int(n) - start) >= 2
        ]
        needs = [corruption.lengths(n) for _, _, n in self._pieces]
        self._plan = first_fit(needs, self._shape) if needs else []

    def __len__(self) -> int:
        return len(self._plan)

    def row(self, index: int, rng: np.random.Generator) -> Row:
        pairs = [self._corruption(piece, rng) for piece in map(self._piece, self._plan[index]) if len(piece) >= 2]
        return pack_pairs(pairs, *self._shape, **self._ids)

    def _piece(self, i: int) -> np.ndarray:
        document, start, n = self._pieces[i]
        piece = self._corpus.document(document)[start : start + n]
        return piece[~np.isin(piece, self._special)] if len(self._special) else piece
