"""What every store refuses before it writes or searches."""

from collections.abc import Sequence

import numpy as np

from .embed import Embed
from .store import Entry, Store


def entries(given: Sequence[Entry], width: int) -> None:
    """Refuses documents twice or without chunks, chunks of other documents, and vectors of another shape."""
    if len({entry.source for entry in given}) != len(given):
        raise ValueError("a document was given twice in one call")
    for source, _, chunks, vectors in given:
        if not chunks:
            raise ValueError(f"{source}: a document needs at least one chunk")
        if other := {chunk.source for chunk in chunks} - {source}:
            raise ValueError(f"{source}: given chunks of {sorted(other)[0]!r}")
        if len({chunk.id for chunk in chunks}) != len(chunks):
            raise ValueError(f"{source}: two chunks have the same offsets")
        shape = np.shape(vectors)
        if shape != (len(chunks), width):
            raise ValueError(
                f"{source}: the store holds vectors of width {width} and expected {(len(chunks), width)}, given {shape}"
            )
        if not np.isfinite(vectors).all():
            raise ValueError(f"{source}: embeddings have values that are no finite numbers")


def vector(given: np.ndarray, width: int, k: int) -> np.ndarray:
    """The query as float32 [width]; refuses another width and k < 1."""
    if k < 1:
        raise ValueError(f"k must be at least 1, given {k}")
    if np.shape(given) != (width,):
        raise ValueError(f"the store holds vectors of width {width}, the query has shape {np.shape(given)}")
    return np.asarray(given, np.float32)


def embedder(name: object, store: Store, embed: Embed) -> None:
    """Refuses vectors of another embedder or width than those of the store."""
    made_by(name, store.embedder, store.width, embed.name, embed.width)


def made_by(name: object, has: str, has_width: int, given: str, given_width: int) -> None:
    """The same of the names and widths alone."""
    if (has, has_width) != (given, given_width):
        raise ValueError(
            f"{name} holds vectors of {has!r}, width {has_width}; given {given!r}, width {given_width}: "
            "use that embedder, or ingest into another store"
        )
