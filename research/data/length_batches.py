"""Batches of rows of like length: less padding, a handful of shapes to compile."""

from collections.abc import Sequence

import numpy as np


def length_batches(
    lengths: Sequence[int], size: int, rng: np.random.Generator | None, *, window: int = 16
) -> list[list[int]]:
    """Every row's index once, in batches of `size` (the last of all may be smaller).

    Rows are shuffled, sorted by length inside windows of `window` batches, and the batches shuffled again: which rows
    meet is still mostly chance, but they are about as long as each other. Without rng: sorted, longest first.
    """
    if size < 1 or window < 1:
        raise ValueError(f"size and window must be at least 1, given {size} and {window}")
    if rng is None:
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        return [order[i : i + size] for i in range(0, len(order), size)]
    shuffled = rng.permutation(len(lengths)).tolist()
    batches = []
    for start in range(0, len(shuffled), window * size):
        near = sorted(shuffled[start : start + window * size], key=lambda i: lengths[i])
        batches += [near[i : i + size] for i in range(0, len(near), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def bucket(length: int, edges: Sequence[int]) -> int:
    """The smallest of `edges` that holds `length`.

    Raises:
      ValueError: it is longer than all of them.
    """
    fitting = [edge for edge in edges if edge >= length]
    if not fitting:
        raise ValueError(f"a row of {length} tokens is longer than the largest bucket, {max(edges)}")
    return min(fitting)
