"""A vector store as retrieval sees it: chunks with vectors and text search, kept by the document they are from.

Two databases give it: `sqlite.SQLiteStore`, one file, and `lance.LanceStore`, for what outgrows one machine.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from .document import Chunk

Where = Mapping[str, Any]
"""Field -> a value it equals, a list that holds it, or bounds such as {">=": 1950, "<": 1960}; all must hold.

A field is id, source, title, heading, start, end, or a key of the metadata.
"""


class Entry(NamedTuple):
    """A document as it is stored: the hash of its content, its chunks and their vectors [chunks, width]."""

    source: str
    digest: str
    chunks: Sequence[Chunk]
    vectors: np.ndarray


class Hit(NamedTuple):
    """A chunk and how well it fits; the greater the better."""

    chunk: Chunk
    score: float


class Store(Protocol):
    """Whatever stores.

    Attributes:
      embedder: the name of the embedder whose vectors it holds. width: of these vectors.
    """

    embedder: str
    width: int

    def upsert(self, entries: Sequence[Entry]) -> None:
        """Puts documents in the place of those of the same source; all of them or, whatever happens, none."""
        ...

    def delete(self, sources: Sequence[str]) -> None:
        """Takes documents out; all of them or none. A source that is not there is no error."""
        ...

    def search(self, vector: np.ndarray, k: int, where: Where | None = None) -> list[Hit]:
        """The k chunks of the greatest inner product with a vector [width], which of unit vectors is the cosine."""
        ...

    def text_search(self, query: str, k: int, where: Where | None = None) -> list[Hit]:
        """The k chunks that fit a query best in the database's own index of words, which is not `bm25.BM25`."""
        ...

    def get(self, where: Where | None = None) -> list[Chunk]:
        """The chunks that fit a filter (all without one), in the order of their sources and offsets."""
        ...

    def sources(self) -> dict[str, str]:
        """Source -> digest."""
        ...

    def version(self) -> str:
        """Another text after every change."""
        ...

    def index(self) -> None:
        """Builds what makes search fast; `ingest` calls it at its end."""
        ...

    def __len__(self) -> int:
        """The number of chunks."""
        ...

    def close(self) -> None:
        """Lets go of the files."""
        ...
