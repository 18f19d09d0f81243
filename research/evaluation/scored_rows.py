"""One forward pass over many rows of like length: ln p of what each position is to predict.

B batch · T length · S source length · V vocabulary · C chunk of positions whose logits exist at a time ·
A last tokens that are compared after the same beginning
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.core.types import Array, Batch, Params
from research.data.length_batches import length_batches
from research.data.packing import pad_batch
from research.data.virtual import prepend
from research.models import Model

CHUNK = 64
_ASKED = ("targets", "last", "ends")  # of a batch, what the model does not read
SHORTEST = 32  # rows are padded to this, twice this, ...: few shapes, so few programs


class Row(NamedTuple):
    """What one forward pass reads and is asked.

    Attributes:
      tokens: [n] ids. targets: [n], what each position is to predict. skipped: leading targets that are not counted.
      source: the encoder's ids; empty for a decoder.
    """

    tokens: Sequence[int]
    targets: Sequence[int]
    skipped: int = 0
    source: Sequence[int] = ()


def windows(ids: Sequence[int], length: int, stride: int) -> list[Row]:
    """Rows of at most `length` tokens, `stride` apart, that together count every id but the first once."""
    tokens, targets = ids[:-1], ids[1:]
    found: list[Row] = []
    scored = start = 0
    while scored < len(targets):
        end = min(start + length, len(targets))
        found.append(Row(tokens[start:end], targets[start:end], scored - start))
        scored, start = end, start + stride
    return found


def score_rows(
    model: Model,
    params: Params,
    rows: Sequence[Row],
    *,
    length: int,
    width: int | None = None,
    batch_size: int = 16,
    virtual: Sequence[int] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """(nats [n], greedy [n]) of the counted targets of each row; rows of like length share a batch.

    Rows that read the same and differ in their last target only (choices of one token) are read once.

    length: the most tokens of a row. width: pads all rows to this, so that there is one program.
    """
    nats, greedy = np.zeros(len(rows)), np.ones(len(rows), bool)
    alike: dict[tuple, list[int]] = {}
    for i, row in enumerate(rows):
        alike.setdefault((tuple(row.tokens), tuple(row.source), tuple(row.targets[:-1])), []).append(i)
    groups = list(alike.values())
    most = max(map(len, groups), default=1)
    room = 1 << (most - 1).bit_length()  # 1, 2, 4, ...: few shapes here as well
    for chosen in length_batches([len(rows[group[0]].tokens) for group in groups], batch_size, None):
        some = [groups[i] for i in chosen]
        batch = _batch([rows[group[0]] for group in some], length, width, batch_size, virtual)
        last = np.zeros((batch_size, room), np.int32)
        for k, group in enumerate(some):
            last[k, : len(group)] = [rows[i].targets[-1] for i in group]
        ends = np.array([len(rows[group[0]].tokens) - 1 for group in some] + [0] * (batch_size - len(some)))
        found = _scored(model, params, batch | {"last": last, "ends": ends.astype(np.int32)})
        logprobs, last_logprobs = (np.asarray(x, np.float64) for x in found[:2])
        best, last_best = (np.asarray(x) for x in found[2:])
        for k, group in enumerate(some):
            for a, i in enumerate(group):
                before = slice(rows[i].skipped, len(rows[i].tokens) - 1)
                nats[i] = -(logprobs[k, before].sum() + last_logprobs[k, a])
                greedy[i] = best[k, before].all() and last_best[k, a]
    return nats, greedy


@partial(jax.jit, static_argnums=0)
def _scored(model: Model, params: Params, batch: Batch) -> tuple[Array, Array, Array, Array]:
    """ln p of the target [B, T] and of each `last` token at position `ends` [B, A]; whether each is the likeliest."""
    targets, ends = batch["targets"], batch["ends"]
    B, T = targets.shape
    output = model.apply(params, {name: value for name, value in batch.items() if name not in _ASKED})
    hidden = output.hidden[:, -T:]  # a soft prompt stands in front
    steps = -(-T // CHUNK)
    fill = steps * CHUNK - T

    def one(chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        logprobs, best = compared(chunk[0], chunk[1][..., None])
        return logprobs[..., 0], best[..., 0]

    def compared(hidden: Array, ids: Array) -> tuple[Array, Array]:
        logits = model.logits(params, hidden).astype(jnp.float32)
        chosen = jnp.take_along_axis(logits, ids, axis=-1)
        total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        return chosen - total, chosen >= jnp.max(logits, axis=-1, keepdims=True)

    cut = lambda x: jnp.moveaxis(x.reshape(B, steps, CHUNK, *x.shape[2:]), 1, 0)  # noqa: E731
    chunks = cut(jnp.pad(hidden, ((0, 0), (0, fill), (0, 0)))), cut(jnp.pad(targets, ((0, 0), (0, fill))))
    logprobs, best = jax.lax.map(one, chunks)
    join = lambda x: jnp.moveaxis(x, 0, 1).reshape(B, -1)[:, :T]  # noqa: E731
    last_logprobs, last_best = compared(hidden[jnp.arange(B), ends], batch["last"])
    return join(logprobs), last_logprobs, join(best), last_best


def _batch(
    rows: Sequence[Row], length: int, width: int | None, size: int, virtual: Sequence[int]
) -> dict[str, np.ndarray]:
    """Padded rows; a batch that is not full gets rows of one token, so that its shape is that of the others."""
    rows = [*rows, *[Row([0], [0], 0, [0] if rows[0].source else ())] * (size - len(rows))]
    width = width or padded_width(max(len(row.tokens) for row in rows), length)
    batch = pad_batch([row.tokens for row in rows], width)
    if rows[0].source:
        source = pad_batch([row.source for row in rows], padded_width(max(len(row.source) for row in rows), length))
        names = {"tokens": "inputs", "positions": "input_positions", "segment_ids": "input_segment_ids"}
        batch |= {names[name]: value for name, value in source.items()}
    batch = prepend(batch, virtual) if virtual else batch
    return batch | {"targets": pad_batch([row.targets for row in rows], width)["tokens"]}


def padded_width(longest: int, length: int) -> int:
    """The smallest of SHORTEST · 2ᵏ that holds `longest`, but at most `length`."""
    width = SHORTEST
    while width < longest:
        width *= 2
    return min(width, length)
