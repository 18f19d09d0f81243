"""An embedder as retrieval sees it: texts in, unit vectors out."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Embed(Protocol):
    """Whatever embeds.

    Attributes:
      name: kept in a store, which refuses vectors of another. width: of its vectors.
    """

    name: str
    width: int

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """[N, width] float32 rows of length 1."""
        ...
