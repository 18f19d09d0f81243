"""Prompts as the compiled programs take them: right-padded, in buckets, checked before anything is computed.

B batch · T padded prompt length

Lengths are rounded up to a bucket, so a new prompt length usually finds a compiled program. Padding stands on the
right: the next token of a row overwrites it in the cache, so a row holds its tokens in slots 0, 1, 2, ...
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Rows = Sequence[Sequence[int]]
FEW = 8  # batches


def bucket(length: int) -> int:
    """The smallest of 16, 24, 32, 48, 64, 96, ... that holds `length`."""
    if length < 1:
        raise ValueError(f"a bucket holds at least 1 token, got {length}")
    size = 16
    while size < length:
        size *= 2
    return size * 3 // 4 if size > 16 and length <= size * 3 // 4 else size


def context(model: Any) -> int | None:
    """The longest sequence that the model's positions allow; None where they have no end (relative, ALiBi, none)."""
    config = model.config
    return None if config.positions in ("relative", "alibi", "none") else config.max_length


def has_encoder(model: Any) -> bool:
    """Whether prompts are read by an encoder and the decoder starts from its own token."""
    return model.config.kind == "encoder_decoder"


def as_rows(
    prompts: Rows | Mapping[str, Any], tokens: str = "tokens", segments: str = "segment_ids"
) -> list[list[int]]:
    """Lists of ids from lists, from an array, or from a batch (`tokens`, with `segment_ids` 0 where it is padding)."""
    if isinstance(prompts, Mapping):
        if tokens not in prompts:
            raise ValueError(f"a batch of prompts needs {tokens!r}, has {sorted(prompts)}")
        ids = np.asarray(prompts[tokens])
        if segments not in prompts:
            return [[int(i) for i in row] for row in ids]
        return [[int(i) for i in row[keep]] for row, keep in zip(ids, np.asarray(prompts[segments]) > 0, strict=True)]
    if len(prompts) and np.ndim(prompts[0]) == 0:
        raise ValueError("prompts must be a list of lists of token ids: wrap a single prompt in a list")
    return [[int(i) for i in row] for row in prompts]


def check_rows(rows: list[list[int]], vocab_size: int, limit: int | None, what: str = "prompt") -> None:
    """Raises ValueError for an empty row, an id outside the vocabulary, or a row longer than the model."""
    if not rows:
        raise ValueError(f"no {what} given: expected at least one list of token ids")
    for i, row in enumerate(rows):
        if not row:
            raise ValueError(f"{what} {i} is empty: give at least one token, for example the tokenizer's bos_id")
        bad = [token for token in row if not 0 <= token < vocab_size]
        if bad:
            raise ValueError(f"{what} {i} holds token id {bad[0]}, outside the model's vocabulary of {vocab_size}")
        if limit is not None and len(row) > limit:
            raise ValueError(f"{what} {i} has {len(row)} tokens, the model takes at most {limit}")


def check_room(rows: list[list[int]], budget: np.ndarray, limit: int | None) -> None:
    """Raises ValueError where a prompt and its new tokens (the last of which is never read) exceed the model."""
    for i, row in enumerate(rows):
        room = None if limit is None else limit - len(row) + 1
        if room is not None and budget[i] > room:
            raise ValueError(
                f"prompt {i} has {len(row)} tokens and max_new_tokens is {budget[i]}: "
                f"a model of length {limit} has room for {room} new tokens"
            )


def per_row(value: int | Sequence[int] | np.ndarray, rows: int, name: str) -> np.ndarray:
    """One whole number >= 0 for each row `[B]` from a number or a sequence."""
    numbers = np.asarray(value)
    if numbers.ndim and numbers.shape != (rows,):
        raise ValueError(f"{name} has shape {numbers.shape}, expected one number or one for each of {rows} rows")
    if not np.issubdtype(numbers.dtype, np.integer) or np.any(numbers < 0):
        raise ValueError(f"{name} must be whole numbers >= 0, got {value}")
    return np.broadcast_to(numbers, (rows,)).astype(np.int32)


def pad_right(rows: list[list[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 `(tokens, segment_ids)` `[B, T]` with padding (0, segment 0) on the right."""
    tokens = np.zeros((len(rows), length), np.int32)
    segments = np.zeros((len(rows), length), np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
        segments[i, : len(row)] = 1
    return tokens, segments


def shared_width(rows: Rows, batch_size: int) -> int:
    """A length that all batches of these prompts are padded to: the longest, where there are few; else 1, each its own.

    Each length is a program of its own, and to compile one takes as long as some batches of a small model.
    """
    return max(map(len, rows), default=1) if len(rows) <= FEW * batch_size else 1


def padded_length(rows: list[list[int]], limit: int | None, width: int = 1) -> int:
    """The bucket of the longest row, or of `width` if that is more, not beyond the model's own length."""
    size = bucket(max(width, *map(len, rows)))
    return size if limit is None else min(size, limit)
