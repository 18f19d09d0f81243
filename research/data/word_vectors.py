"""Texts as counts of their words, and how alike two texts are by them."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import sparse


def split_words(text: str) -> list[str]:
    """Runs of letters, digits and underscores, in lower case."""
    return re.findall(r"\w+", text.lower())


def count_words(texts: Sequence[str], vocabulary: dict[str, int]) -> sparse.csr_array:
    """Word counts [texts, vocabulary]; words outside the vocabulary are left out."""
    rows, columns, values = [], [], []
    for row, text in enumerate(texts):
        for word, n in Counter(w for w in split_words(text) if w in vocabulary).items():
            rows.append(row)
            columns.append(vocabulary[word])
            values.append(float(n))
    shape = (len(texts), max(len(vocabulary), 1))
    return sparse.coo_array((values, (rows, columns)), shape=shape, dtype=np.float64).tocsr()


class TfIdf:
    """Texts to be compared with: tf-idf(w, t) = count(w in t) · ln(n / texts with w), over the words of the n texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._vocabulary: dict[str, int] = {}
        for text in texts:
            for word in split_words(text):
                self._vocabulary.setdefault(word, len(self._vocabulary))
        known = count_words(texts, self._vocabulary)
        with_word = np.bincount(known.indices, minlength=len(self._vocabulary))
        self._idf = sparse.diags_array(np.log(len(texts) / np.maximum(with_word, 1)))
        self._known = known @ self._idf
        self._norms = np.sqrt(np.asarray(self._known.multiply(self._known).sum(axis=1)).ravel())

    def similarity(self, asked: Sequence[str]) -> np.ndarray:
        """The cosine of each asked text with each known one [asked, texts], but for the asked text's own norm.

        That norm changes no ranking of the known texts.
        """
        vectors = count_words(asked, self._vocabulary) @ self._idf
        return (vectors @ self._known.T).toarray() / np.maximum(self._norms, 1e-12)
