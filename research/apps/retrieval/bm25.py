"""BM25: the relevance of texts to a query by their common words."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from .words import words


class BM25:
    """Σ over a query's words of idf · tf (k₁ + 1) / (tf + k₁ (1 − b + b · length / mean length)).

    idf = ln(1 + (N − df + ½) / (df + ½)), which is never negative; a word that a query repeats counts as often. See
    *The Probabilistic Relevance Framework: BM25 and Beyond*, Robertson and Zaragoza, 2009.
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        k1: float = 1.2,
        b: float = 0.75,
        split: Callable[[str], list[str]] = words,
    ) -> None:
        """split: text -> its words.

        Raises:
          ValueError: no texts, k1 < 0, or b outside 0 .. 1.
        """
        if not texts or k1 < 0 or not 0 <= b <= 1:
            raise ValueError(f"BM25 needs texts, k1 >= 0 and 0 <= b <= 1; given {len(texts)} texts, {k1=}, {b=}")
        self._split = split
        self._columns: dict[str, int] = {}
        counts = [Counter(split(text)) for text in texts]
        columns = [self._columns.setdefault(word, len(self._columns)) for count in counts for word in count]
        rows = np.repeat(np.arange(len(texts)), [len(count) for count in counts])
        frequency = np.array([n for count in counts for n in count.values()], np.float64)
        lengths = np.array([count.total() for count in counts], np.float64)
        relative = lengths / max(lengths.mean(), 1e-9)
        found_in = np.bincount(columns, minlength=len(self._columns))
        idf = np.log1p((len(texts) - found_in + 0.5) / (found_in + 0.5))
        weights = idf[columns] * frequency * (k1 + 1) / (frequency + k1 * (1 - b + b * relative[rows]))
        self._weights = sparse.csc_array((weights, (rows, columns)), shape=(len(texts), len(self._columns)))

    def scores(self, query: str) -> np.ndarray:
        """The score of every text [N], 0 where it has no word of the query."""
        asked = Counter(word for word in self._split(query) if word in self._columns)
        columns = [self._columns[word] for word in asked]
        return self._weights[:, columns] @ np.array([asked[word] for word in asked], np.float64)
