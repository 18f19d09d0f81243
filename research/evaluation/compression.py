"""What a language model has to beat: a general compressor and counting, on the same held-out documents.

Every method pays for the documents' bytes and one end mark per document, and divides by the documents' bytes alone.
"""

import lzma
from collections.abc import Sequence

import numpy as np

END = b"\0"  # one byte that text does not hold; documents that hold it are refused


def xz_bits_per_byte(train: Sequence[str], held_out: Sequence[str]) -> float:
    """Bits per byte of xz primed with the training text: (size(train + held out) − size(train)) · 8 / bytes."""
    before, after = _joined(train), _joined(held_out)
    return 8 * (_xz_size(before + after) - _xz_size(before)) / _text_bytes(held_out)


def ngram_bits_per_byte(train: Sequence[str], held_out: Sequence[str], *, context: int = 5) -> float:
    """Bits per byte of an interpolated Kneser-Ney model over bytes that sees up to `context` bytes back.

    p(c | h) = max(n(hc) − d, 0) / n(h) + d · distinct(h) / n(h) · p(c | h without its first byte), where n counts
    occurrences in the longest order and distinct left neighbours in all shorter ones, d = n₁ / (n₁ + 2 n₂), and
    the shortest order falls back on the uniform distribution over bytes. See *An Empirical Study of Smoothing
    Techniques for Language Modeling*, Chen and Goodman, 1998. Raises ValueError unless 0 <= context <= 7.
    """
    if not 0 <= context <= 7:
        raise ValueError(f"the n-gram model packs context + 1 bytes into one 64-bit number; got context={context}")
    counted = _codes(_bytes(train, context), context + 1)
    scored = _codes(_bytes(held_out, context), context + 1)
    counted, scored = counted[_inside(counted, context)], scored[_inside(scored, context)]
    probability = np.full(len(scored), 1 / 256)
    for kept in range(context + 1):
        probability = _interpolate(counted, scored, kept, context, probability)
    return float(-np.log2(probability).sum() / _text_bytes(held_out))


def _interpolate(counted: np.ndarray, scored: np.ndarray, kept: int, context: int, lower: np.ndarray) -> np.ndarray:
    """Adds the order with `kept` context bytes on top of the probabilities `lower` [n] of the order below."""
    width = np.uint64(8 * (kept + 1))
    if kept == context:
        grams, n = np.unique(counted, return_counts=True)
    else:  # continuation counts: how many different bytes stand to the left of this gram
        longer = np.unique(_low_bits(counted, width + np.uint64(8)))
        grams, n = np.unique(_low_bits(longer, width), return_counts=True)
    once, twice = int((n == 1).sum()), int((n == 2).sum())
    discount = once / (once + 2 * twice) if once else 0.5
    heads, first, distinct = np.unique(grams >> np.uint64(8), return_index=True, return_counts=True)
    total = np.add.reduceat(n, first)

    wanted = _low_bits(scored, width)
    n_gram = _look_up(grams, n, wanted)
    n_head = _look_up(heads, total, wanted >> np.uint64(8))
    n_distinct = _look_up(heads, distinct, wanted >> np.uint64(8))
    seen = np.maximum(n_head, 1)
    with_order = np.maximum(n_gram - discount, 0) / seen + discount * n_distinct / seen * lower
    return np.where(n_head > 0, with_order, lower)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """values of the sorted `keys` at `wanted`, 0 where a wanted key is absent."""
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[index] == wanted, values[index], 0).astype(np.float64)


def _low_bits(codes: np.ndarray, width: np.uint64) -> np.ndarray:
    return codes & (np.uint64(2**64 - 1) >> (np.uint64(64) - width))


def _codes(data: np.ndarray, width: int) -> np.ndarray:
    """Every window of `width` bytes of `data` [n] as one number, the newest byte lowest: [n - width + 1] uint64."""
    codes = np.zeros(len(data) - width + 1, np.uint64)
    for offset in range(width):
        codes = (codes << np.uint64(8)) | data[offset : offset + len(codes)].astype(np.uint64)
    return codes


def _inside(codes: np.ndarray, context: int) -> np.ndarray:
    """The windows that predict a byte of a document or its end mark, not the padding before the next document."""
    if context == 0:
        return np.ones(len(codes), bool)
    newest, before = codes & np.uint64(255), (codes >> np.uint64(8)) & np.uint64(255)
    return (newest != 0) | (before != 0)


def _bytes(documents: Sequence[str], context: int) -> np.ndarray:
    """Documents as bytes, `context` end marks before each (its context) and one after it (its end)."""
    start = END * context
    return np.frombuffer(start + b"".join(part + END + start for part in _parts(documents)), np.uint8)


def _joined(documents: Sequence[str]) -> bytes:
    return b"".join(part + END for part in _parts(documents))


def _parts(documents: Sequence[str]) -> list[bytes]:
    parts = [document.encode() for document in documents]
    if any(END in part or not part for part in parts) or not parts:
        raise ValueError("compression baselines need at least one document; none may be empty or hold a zero byte")
    return parts


def _text_bytes(documents: Sequence[str]) -> int:
    return sum(len(document.encode()) for document in documents)


def _xz_size(data: bytes) -> int:
    return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
