"""Passages for a question: by vectors, by words, or by both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from research.core.names import meant

from . import checked
from .bm25 import BM25
from .document import Chunk
from .embed import Embed
from .fusion import reciprocal_rank
from .store import Hit, Store, Where

KINDS = ("dense", "bm25", "hybrid")

Rerank = Callable[[str, Sequence[str]], Sequence[float]]
"""(question, passages) -> a score each, such as a cross-encoder gives."""


@dataclass
class Retriever:
    """(question, k) -> the k best chunks of a store.

    Attributes:
      kind: "dense": by the cosine of embeddings. "bm25". "hybrid": reciprocal-rank fusion of the two.
      least: what is further away is not returned; a cosine, of "bm25" its score.
      depth: how many of each ranking are fused, and how many of the result are ranked anew by `rerank`.
    """

    store: Store
    embed: Embed | None
    kind: str = "hybrid"
    least: float = -np.inf
    depth: int = 100
    rerank: Rerank | None = None
    _words: tuple[str, BM25 | None, list[Chunk]] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of retrieval {self.kind!r}{meant(self.kind, KINDS)}; have {list(KINDS)}")
        if self.kind != "bm25":
            if self.embed is None:
                raise ValueError(f"{self.kind!r} retrieval needs an embedder")
            checked.embedder("the store", self.store, self.embed)

    def __call__(self, question: str, k: int = 5, where: Where | None = None) -> list[Hit]:
        """The best first; a hit's score is that of the last ranking it went through."""
        if k < 1:
            raise ValueError(f"k must be at least 1, given {k}")
        deep = max(k, self.depth)
        if self.kind == "bm25":
            hits = [hit for hit in self._by_words(question, deep, where) if hit.score >= self.least]
        else:
            assert self.embed is not None
            vector = self.embed([question])[0]
            hits = [hit for hit in self.store.search(vector, deep, where) if hit.score >= self.least]
            if self.kind == "hybrid":
                hits = self._fused(vector, hits, self._by_words(question, deep, where))
        if self.rerank and hits:
            scores = self.rerank(question, [hit.chunk.passage for hit in hits[:deep]])
            hits = [Hit(hit.chunk, float(score)) for hit, score in zip(hits[:deep], scores, strict=True)]
            hits.sort(key=lambda hit: -hit.score)
        return hits[:k]

    def _by_words(self, question: str, k: int, where: Where | None) -> list[Hit]:
        version = self.store.version()
        if self._words is None or self._words[0] != version:
            chunks = self.store.get()
            self._words = version, BM25([chunk.passage for chunk in chunks]) if chunks else None, chunks
        _, bm25, chunks = self._words
        if bm25 is None:
            return []
        scores = bm25.scores(question)
        if where:
            allowed = {chunk.id for chunk in self.store.get(where)}
            scores = scores * np.array([chunk.id in allowed for chunk in chunks])
        best = np.argsort(-scores, kind="stable")[:k]
        return [Hit(chunks[i], float(scores[i])) for i in best if scores[i] > 0]

    def _fused(self, vector: np.ndarray, dense: list[Hit], by_words: list[Hit]) -> list[Hit]:
        """What is found by words only has to be as close as `least` too."""
        chunks = {hit.chunk.id: hit.chunk for hit in (*by_words, *dense)}
        unknown = set(chunks) - {hit.chunk.id for hit in dense}
        if unknown and self.least > -np.inf:
            near = self.store.search(vector, len(unknown), {"id": sorted(unknown)})
            far = {hit.chunk.id for hit in near if hit.score < self.least}
            by_words = [hit for hit in by_words if hit.chunk.id not in far]
        fused = reciprocal_rank([[hit.chunk.id for hit in ranking] for ranking in (dense, by_words)])
        return [Hit(chunks[name], score) for name, score in fused]


def by_source(hits: Sequence[Hit]) -> dict[str, float]:
    """Document -> the score of its best chunk."""
    best: dict[str, float] = {}
    for chunk, score in hits:
        best[chunk.source] = max(score, best.get(chunk.source, -np.inf))
    return best
