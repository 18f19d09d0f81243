"""An embedder for tests of everything around embedders: every word is a random direction."""

import zlib
from collections.abc import Sequence

import numpy as np

from research.apps.retrieval.words import words


class Hashed:
    """The sum of its words' directions, made a unit vector."""

    def __init__(self, width: int = 32) -> None:
        self.name, self.width, self.seen = "hashed", width, 0

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.seen += len(texts)
        return np.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> np.ndarray:
        directions = [np.random.default_rng(zlib.crc32(w.encode())).normal(size=self.width) for w in words(text)]
        total = np.sum(directions or [np.ones(self.width)], axis=0)
        return (total / np.linalg.norm(total)).astype(np.float32)
