"""One family's weights as a table: our path, their name, and how one becomes the other, both ways.

D model width · N query heads · H head size · L layers
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research.core import tree

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Transform:
    """One tensor of theirs to one or more of ours (`load`), and back (`save`); `shape` is their shape from ours."""

    load: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    save: Callable[[Sequence[np.ndarray]], np.ndarray]
    shape: Callable[[Sequence[Shape]], Shape]


SAME = Transform(lambda x: (x,), lambda parts: parts[0], lambda shapes: shapes[0])
TRANSPOSED = Transform(lambda x: (x.T,), lambda parts: parts[0].T, lambda shapes: shapes[0][::-1])
"""A torch Linear stores [out, in]; our kernels are [in, out]."""


LIFTED = Transform(lambda x: (x[0],), lambda parts: parts[0][None], lambda shapes: (1, *shapes[0]))
"""A vector that they keep as a matrix of one row."""


def joined(parts: int) -> Transform:
    """`parts` equal tensors side by side on the last axis: GPT-2's fused [D, 3 D] projection and its bias."""
    return Transform(
        lambda x: tuple(np.split(x, parts, axis=-1)),
        lambda tensors: np.concatenate(list(tensors), axis=-1),
        lambda shapes: (*shapes[0][:-1], sum(shape[-1] for shape in shapes)),
    )


def interleaved(heads: int, *, kernel: bool) -> Transform:
    """BLOOM's fused projection: rows are [N, 3, H], query, key and value alternating head by head."""

    def load(x: np.ndarray) -> tuple[np.ndarray, ...]:
        split = x.reshape(heads, 3, -1, *x.shape[1:])
        parts = tuple(split[:, i].reshape(-1, *x.shape[1:]) for i in range(3))
        return tuple(part.T for part in parts) if kernel else parts

    def save(parts: Sequence[np.ndarray]) -> np.ndarray:
        rows = [part.T if kernel else part for part in parts]
        by_head = [row.reshape(heads, -1, *row.shape[1:]) for row in rows]
        return np.stack(by_head, axis=1).reshape(-1, *rows[0].shape[1:])

    def shape(shapes: Sequence[Shape]) -> Shape:
        return (3 * shapes[0][-1], *shapes[0][:-1])

    return Transform(load, save, shape)


@dataclass(frozen=True)
class Row:
    """Our generic paths (several where theirs is fused), their name ("{l}" is the layer) and the transform."""

    ours: tuple[str, ...]
    theirs: str
    how: Transform = SAME


def dense(ours: str, theirs: str, *, bias: bool = True, kernel: Transform = TRANSPOSED) -> list[Row]:
    """The rows of a linear layer; a bias row that the model lacks is left out by `slots`."""
    rows = [Row((f"{ours}/kernel",), f"{theirs}.weight", kernel)]
    return [*rows, Row((f"{ours}/bias",), f"{theirs}.bias")] if bias else rows


def norm(ours: str, theirs: str) -> list[Row]:
    """The rows of a LayerNorm or RMSNorm; a bias that the model lacks is left out by `slots`."""
    return [Row((f"{ours}/scale",), f"{theirs}.weight"), Row((f"{ours}/bias",), f"{theirs}.bias")]


@dataclass(frozen=True)
class Slot:
    """One tensor of theirs, the weights of ours that it holds, and at which index of their layer axis."""

    name: str
    paths: tuple[str, ...]
    index: int | None
    how: Transform
    shape: Shape


def _runs(paths: Mapping[str, Any]) -> dict[str, list[str]]:
    by_generic: dict[str, list[str]] = {}
    for path in paths:
        by_generic.setdefault(tree.generic(path), []).append(path)
    return {name: sorted(full, key=_first_layer) for name, full in by_generic.items()}


def _first_layer(path: str) -> int:
    found = re.search(r"(?:^|/)layers/(\d+)/", path)
    return int(found.group(1)) if found else 0


def _slots_of(row: Row, runs: Mapping[str, list[str]], leaves: Mapping[str, Any]) -> Iterator[Slot]:
    for full in zip(*(runs[path] for path in row.ours), strict=True):
        shapes = [tuple(leaves[path].shape) for path in full]
        if "{l}" not in row.theirs:
            yield Slot(row.theirs, full, None, row.how, row.how.shape(shapes))
            continue
        first, length = _first_layer(full[0]), shapes[0][0]
        shape = row.how.shape([shape[1:] for shape in shapes])
        for i in range(length):
            yield Slot(row.theirs.format(l=first + i), full, i, row.how, shape)


def slots(rows: Sequence[Row], params: Any) -> list[Slot]:
    """Every tensor that a checkpoint of `params` (arrays or shapes) has in their naming.

    Raises:
      ValueError: a weight of ours that no row names; the message lists them.
    """
    leaves = tree.paths(params)
    runs = _runs(leaves)
    chosen = [row for row in rows if any(path in runs for path in row.ours)]
    named = {path for row in chosen for path in row.ours}
    if unnamed := sorted(set(runs) - named):
        raise ValueError(f"the table has no name for the weights {unnamed}; it names {sorted(named)}")
    for row in chosen:
        if absent := [path for path in row.ours if path not in runs]:
            raise ValueError(f"{row.theirs} holds {list(row.ours)} together, but the model lacks {absent}")
    return [slot for row in chosen for slot in _slots_of(row, runs, leaves)]
