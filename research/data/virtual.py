"""Virtual tokens: ids behind the vocabulary, for which a soft prompt answers, put in front of texts.

B batch · T length · P virtual tokens
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .packing import Example


def with_virtual(example: Example, ids: Sequence[int]) -> Example:
    """The example with P virtual ids in front, none of them predicted."""
    tokens = np.concatenate([np.asarray(ids, example.tokens.dtype), example.tokens])
    return Example(tokens, np.concatenate([np.zeros(len(ids), example.loss_mask.dtype), example.loss_mask]))


def prepend(batch: Mapping[str, Any], ids: Sequence[int], *, behind: int = 0) -> dict[str, np.ndarray]:
    """The batch, on the host, with virtual ids in front of every row's text; an encoder's inputs where there are any.

    behind: how many tokens of the text stay in front of the prompt (1 keeps a leading [CLS] first).

    Rows may be padded on either side. Their positions are counted anew; new places are not supervised.

    Raises:
      ValueError: a row holds several packed segments.
    """
    side = "inputs" if "inputs" in batch else "tokens"
    prefix = "input_" if side == "inputs" else ""
    tokens = np.asarray(batch[side])
    segments = np.asarray(batch.get(f"{prefix}segment_ids", np.ones_like(tokens)))
    if segments.max(initial=0) > 1:
        raise ValueError(
            "a soft prompt goes in front of one text per row; this batch holds packed segments: "
            "set pack=False in the data section"
        )
    P = len(ids)
    # A left-padded row has its prompt behind the padding.
    place = np.where((segments > 0).any(1), (segments > 0).argmax(1), 0) + behind
    index = np.arange(tokens.shape[1] + P)[None]
    virtual = (index >= place[:, None]) & (index < place[:, None] + P)
    source = np.clip(index - np.where(index >= place[:, None] + P, P, 0), 0, tokens.shape[1] - 1)
    spread = lambda x, fill: np.where(virtual, fill, np.take_along_axis(np.asarray(x), source, axis=1))  # noqa: E731
    out = {name: np.asarray(array) for name, array in batch.items()}
    out[side] = spread(tokens, np.asarray(ids)[np.clip(index - place[:, None], 0, P - 1)]).astype(tokens.dtype)
    real = spread(segments, 1)
    out[f"{prefix}segment_ids"] = real
    if f"{prefix}positions" in batch:
        out[f"{prefix}positions"] = np.maximum(np.cumsum(real > 0, axis=1) - 1, 0).astype(np.int32)
    if side == "tokens" and "horizon" in batch:
        # A horizon is a position, and the text has moved; the prompt belongs to what its first token sees.
        first = np.take_along_axis(np.asarray(batch["horizon"]), np.minimum(place, tokens.shape[1] - 1)[:, None], 1)
        out["horizon"] = spread(batch["horizon"], first).astype(np.int32) + P
    beside = ("targets", "loss_mask", "token_types") if side == "tokens" else ()
    for name in beside:
        if name in batch and np.ndim(batch[name]) == 2:
            out[name] = spread(batch[name], 0).astype(np.asarray(batch[name]).dtype)
    return out
