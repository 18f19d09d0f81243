"""A batch is looked at on the host before any work is spent on it."""

from collections.abc import Mapping

import numpy as np

_IDS = ("tokens", "inputs", "targets")


def check_batch(batch: Mapping[str, np.ndarray], vocab_size: int, max_length: int | None = None) -> None:
    """Raise ValueError, in one line, for a batch that cannot train a model of this vocabulary and length.

    Refused: no `tokens`; ids outside [0, vocab_size); rows longer than `max_length` (the model's table of positions,
    None when it has no bound); arrays of different shapes; a loss mask without a single predicted token, or one that
    is not finite.
    """
    if "tokens" not in batch:
        raise ValueError(f"the batch has no 'tokens'; it has {sorted(batch)}")
    for key in _IDS:
        if key not in batch or batch[key].size == 0:
            continue
        ids = np.asarray(batch[key])
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocab_size:
            bad = np.argwhere((ids < 0) | (ids >= vocab_size))[0].tolist()
            raise ValueError(
                f"{key} holds ids {low}..{high}, the model's vocabulary has {vocab_size} (first at {bad}); "
                "does the tokenizer belong to the model?"
            )
    for key in ("tokens", "inputs"):
        if max_length is not None and key in batch and batch[key].shape[-1] > max_length:
            raise ValueError(f"{key} are {batch[key].shape[-1]} long, the model takes at most {max_length}")
    shape = batch["tokens"].shape
    for key in ("targets", "loss_mask", "segment_ids", "positions", "horizon", "token_types"):
        if key in batch and batch[key].shape != shape:
            raise ValueError(f"{key} has shape {batch[key].shape}, tokens have {shape}")
    if "loss_mask" in batch:
        total = float(np.sum(batch["loss_mask"]))
        if not np.isfinite(total):
            raise ValueError("the loss mask holds values that are not finite")
        if total <= 0:
            raise ValueError(f"no token of this batch of shape {shape} is predicted: its loss mask is all zero")
