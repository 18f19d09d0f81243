"""One forward pass over many rows of like length: ln p of what each position is to predict.

B batch · T length · S source length · V vocabulary · C chunk of positions whose logits exist at a time
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

    length: the most tokens of a row. width: pads all rows to this, so that there is one program.
    """
    nats, greedy = np.zeros(len(rows)), np.ones(len(rows), bool)
    for chosen in length_batches([len(row.tokens) for row in rows], batch_size, None):
        some = [rows[i] for i in chosen]
        logprobs, best = _scored(model, params, _batch(some, length, width, batch_size, virtual))
        logprobs, best = np.asarray(logprobs, np.float64), np.asarray(best)
        for k, (i, row) in enumerate(zip(chosen, some, strict=True)):
            counted = slice(row.skipped, len(row.tokens))
            nats[i], greedy[i] = -logprobs[k, counted].sum(), best[k, counted].all()
    return nats, greedy


@partial(jax.jit, static_argnums=0)
def _scored(model: Model, params: Params, batch: Batch) -> tuple[Array, Array]:
    """(ln p of the target, whether it is the most likely token), both [B, T]."""
    targets = batch["targets"]
    B, T = targets.shape
    output = model.apply(params, {name: value for name, value in batch.items() if name != "targets"})
    hidden = output.hidden[:, -T:]  # a soft prompt stands in front
    steps = -(-T // CHUNK)
    fill = steps * CHUNK - T

    def one(chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        logits = model.logits(params, chunk[0]).astype(jnp.float32)
        chosen = jnp.take_along_axis(logits, chunk[1][..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1), chosen >= jnp.max(logits, axis=-1)

    cut = lambda x: jnp.moveaxis(x.reshape(B, steps, CHUNK, *x.shape[2:]), 1, 0)  # noqa: E731
    chunks = cut(jnp.pad(hidden, ((0, 0), (0, fill), (0, 0)))), cut(jnp.pad(targets, ((0, 0), (0, fill))))
    logprobs, best = jax.lax.map(one, chunks)
    join = lambda x: jnp.moveaxis(x, 0, 1).reshape(B, -1)[:, :T]  # noqa: E731
    return join(logprobs), join(best)


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
