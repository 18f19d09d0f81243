"""Approximate search by faiss above a SQLite store: an inverted file, built from its vectors and kept beside it."""

import os
from pathlib import Path
from typing import Any

import numpy as np

_PER_LIST = 98  # vectors of a list on average: 1,024 lists for 100,000 vectors
_PROBED = 32  # so many lists are read, or one in so many where that is more


class VectorIndex:
    """faiss's IVF with whole vectors: the nearest lists of vectors are searched exactly.

    The file's name holds the version of the store that it was built from, so that a stale one is never read.
    """

    def __init__(self, store: Path) -> None:
        self._store, self._version, self._faiss = store, "", None

    def load(self, version: str) -> bool:
        """Whether the index of this version is there and whole."""
        if self._version == version:
            return True
        try:
            index = _faiss().read_index(str(self._path(version)))
        except RuntimeError:  # none, or a damaged one
            return False
        self._version, self._faiss = version, index
        return True

    def build(self, version: str, numbers: np.ndarray, vectors: np.ndarray) -> None:
        """An index of vectors [N, width] under their numbers [N]; takes the place of the one before it."""
        faiss = _faiss()
        lists = max(1, len(vectors) // _PER_LIST)
        width = vectors.shape[1]
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1  # it warns otherwise
        index.train(vectors)
        index.add_with_ids(vectors, numbers)
        index.nprobe = min(lists, max(_PROBED, lists // _PROBED))
        made = self._store.with_name(f"{self._store.name}.{os.getpid()}.tmp")
        faiss.write_index(index, str(made))
        for stale in self._store.parent.glob(f"{self._store.name}.*.faiss"):
            stale.unlink()
        made.replace(self._path(version))
        self._version, self._faiss = version, index

    def search(self, query: np.ndarray, k: int) -> list[tuple[int, float]]:
        """(number, inner product) of up to k vectors, the nearest first."""
        index: Any = self._faiss
        scores, numbers = index.search(query[None], k)
        return [(int(n), float(s)) for n, s in zip(numbers[0], scores[0], strict=True) if n >= 0]

    def _path(self, version: str) -> Path:
        return self._store.with_name(f"{self._store.name}.{version}.faiss")


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ValueError(
            "a store of this size is searched by faiss: pip install lifecycle[rag], or open it with a greater exact_to"
        ) from None
    return faiss
