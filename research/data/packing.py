"""Rows of fixed length from documents of any length; attention and targets never cross a document.

Row keys, all [T]: `tokens`, `targets` (the next token of the same document), `loss_mask` (0 at a document's last token
and at padding), `segment_ids` (1.. per document, 0 = padding), `positions` (from 0 in each document).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Row = dict[str, np.ndarray]


class Example(NamedTuple):
    """Token ids and which of them are to be predicted (both [n])."""

    tokens: np.ndarray
    loss_mask: np.ndarray


def first_fit(lengths, capacity: int | Sequence[int], *, open_rows: int = 256) -> list[np.ndarray]:
    """Which examples share a row: each goes into the first open row with room, in the order given.

    Args:
      lengths: [n], or [n, K] when a row has K parts of their own size (encoder and decoder).
      capacity: room of a row, one number per part.
      open_rows: how many unfinished rows are kept open; the oldest is closed when one more is needed.
    Returns: one index array per row, rows in order of their first example.
    Raises ValueError for an example longer than a row.
    """
    room = np.atleast_1d(np.asarray(capacity, np.int64))
    lengths = np.asarray(lengths, np.int64)
    lengths = lengths[:, None] if lengths.ndim == 1 else lengths
    if lengths.shape[1] != len(room):
        raise ValueError(f"{lengths.shape[1]} lengths per example but {len(room)} capacities")
    long = np.flatnonzero((lengths > room).any(axis=1))
    if long.size:
        worst = lengths[long].max(axis=0).tolist()
        raise ValueError(f"{long.size} of {len(lengths)} examples are longer than a row of {room.tolist()}: {worst}")
    rows: list[list[int]] = []
    free = np.zeros((0, len(room)), np.int64)
    opened = np.zeros(0, np.int64)  # row number behind each line of `free`
    for i, need in enumerate(lengths):
        fits = (free >= need).all(axis=1)
        at = int(fits.argmax()) if fits.any() else -1
        if at < 0:
            if len(free) == open_rows:
                free, opened = free[1:], opened[1:]
            free = np.concatenate([free, room[None]])
            opened = np.append(opened, len(rows))
            rows.append([])
            at = len(free) - 1
        rows[opened[at]].append(i)
        free[at] -= need
        if not free[at].all():  # full: nothing fits any more
            free, opened = np.delete(free, at, axis=0), np.delete(opened, at)
    return [np.array(row) for row in rows]


def shift(example: Example, pad_id: int = 0) -> Row:
    """`tokens`, `targets`, `loss_mask` [n] of one example: position t predicts token t+1, the last one nothing."""
    tokens = np.asarray(example.tokens, np.int32)
    targets = np.append(tokens[1:], np.int32(pad_id)).astype(np.int32)[: len(tokens)]
    mask = np.append(np.asarray(example.loss_mask)[1:], 0).astype(np.float32)[: len(tokens)]
    return {"tokens": tokens, "targets": targets, "loss_mask": mask}


def empty_row(length: int, pad_id: int = 0) -> Row:
    """A row of padding only."""
    return {
        "tokens": np.full(length, pad_id, np.int32),
        "targets": np.full(length, pad_id, np.int32),
        "loss_mask": np.zeros(length, np.float32),
        "segment_ids": np.zeros(length, np.int32),
        "positions": np.zeros(length, np.int32),
    }


def pack_row(examples: Sequence[Example], length: int, pad_id: int = 0) -> Row:
    """One row that holds `examples` one after the other; raises ValueError if they do not fit."""
    total = sum(len(e.tokens) for e in examples)
    if total > length:
        raise ValueError(f"{len(examples)} examples of {total} tokens do not fit a row of {length}")
    row = empty_row(length, pad_id)
    at = 0
    for segment, example in enumerate((e for e in examples if len(e.tokens)), start=1):
        n = len(example.tokens)
        for key, value in shift(example, pad_id).items():
            row[key][at : at + n] = value
        row["segment_ids"][at : at + n] = segment
        row["positions"][at : at + n] = np.arange(n)
        at += n
    return row


def pack(examples: Sequence[Example], length: int, pad_id: int = 0) -> Row:
    """All examples in as few rows as first-fit finds: arrays [rows, T]."""
    plan = first_fit([len(e.tokens) for e in examples], length)
    rows = [pack_row([examples[i] for i in row], length, pad_id) for row in plan]
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]} if rows else {}


def unpack(row: Row) -> list[np.ndarray]:
    """The documents of a row, in order (what `pack_row` was given)."""
    segments = row["segment_ids"]
    return [row["tokens"][segments == s] for s in range(1, int(segments.max(initial=0)) + 1)]


def window(tokens: np.ndarray, starts: np.ndarray, begin: int, length: int, pad_id: int = 0) -> Row:
    """Row `tokens[begin : begin + length]` of a stream of documents laid end to end (concat and split).

    `starts` are the sorted offsets at which documents begin. A document that began before the row continues in it from
    position 0; the row's last token still predicts the first one of the next row when both are of one document.
    """
    seen = np.asarray(tokens[begin : begin + length + 1], np.int32)
    n = min(length, len(tokens) - begin)
    if n <= 0:
        raise ValueError(f"row begins at {begin}, after the last of {len(tokens)} tokens")
    at = np.arange(begin, begin + len(seen))
    document = np.searchsorted(starts, at, side="right") - 1
    row = empty_row(length, pad_id)
    row["tokens"][:n] = seen[:n]
    row["segment_ids"][:n] = document[:n] - document[0] + 1
    row["positions"][:n] = at[:n] - np.maximum(np.asarray(starts)[document[:n]], begin)
    pairs = len(seen) - 1
    same = document[1:] == document[:-1]
    row["targets"][:pairs] = np.where(same, seen[1:], pad_id)
    row["loss_mask"][:pairs] = same
    return row


def pad_batch(rows: Sequence[Sequence[int]], length: int | None = None, *, side: str = "right", pad_id: int = 0) -> Row:
    """`tokens`, `positions`, `segment_ids` [B, T] of prompts of different lengths, padded on one side.

    Positions count from 0 at the first real token on either side. Raises ValueError for another side or a row too long.
    """
    if side not in ("left", "right"):
        raise ValueError(f"unknown side {side!r}; have ['left', 'right']")
    longest = max(map(len, rows), default=0)
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"a row of {longest} tokens does not fit length {length}")
    lengths = np.array([len(r) for r in rows], np.int64)[:, None]
    at = np.arange(length)[None, :]
    real = at < lengths if side == "right" else at >= length - lengths
    tokens = np.full((len(rows), length), pad_id, np.int32)
    tokens[real] = np.concatenate([np.asarray(r, np.int32) for r in rows]) if longest else 0
    positions = np.where(real, at if side == "right" else at - (length - lengths), 0)
    return {"tokens": tokens, "positions": positions.astype(np.int32), "segment_ids": real.astype(np.int32)}
