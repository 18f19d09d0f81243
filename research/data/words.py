"""Where words begin: two tables over the vocabulary, so that a whole array of ids is answered at once."""

from collections.abc import Iterable, Sequence

import numpy as np


def is_word_character(character: str) -> bool:
    """Letters, digits, underscore, and the replacement character that a broken-off byte decodes to."""
    return character.isalnum() or character in "_\ufffd"


class WordTable:
    """Word starts from the text of each vocabulary entry (a leading space written as a space).

    A token starts a word if its text begins with a space or a punctuation mark, if the token before it ends with one,
    or if it is first. Special tokens stand alone.
    """

    def __init__(self, surfaces: Sequence[str], special_ids: Iterable[int]):
        self._opens = np.array([not s or not is_word_character(s[0]) for s in surfaces], bool)
        self._closes = np.array([not s or not is_word_character(s[-1]) for s in surfaces], bool)
        special = list(special_ids)
        self._opens[special] = True
        self._closes[special] = True

    def starts(self, ids) -> np.ndarray:
        """Boolean [T] for ids [T]."""
        ids = np.asarray(ids, np.int64)
        starts = self._opens[ids]
        starts[1:] |= self._closes[ids[:-1]]
        starts[:1] = True
        return starts


def byte_surface(code: int) -> str:
    """The text of one byte: its ASCII character, or the replacement character inside a longer one."""
    return chr(code) if code < 128 else "\ufffd"
