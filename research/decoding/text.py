"""Text from tokens as they come: no half characters, nothing of a stop string.

A stop string may span tokens and may begin in the middle of one, so text that could still become a stop string is held
back, and a row ends with the token that completes one.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from research.data.stream import StreamDecoder


def check_stop_strings(stop_strings: Sequence[str], tokenizer: Any) -> None:
    """Raises ValueError unless these are non-empty strings in a list, with a tokenizer to look for them."""
    if isinstance(stop_strings, str):
        raise ValueError(f"stop_strings must be a list of strings, got the string {stop_strings!r}")
    if stop_strings and tokenizer is None:
        raise ValueError("stop_strings are looked for in text: give the tokenizer")
    if any(not stop for stop in stop_strings):
        raise ValueError("stop_strings must not hold an empty string")


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop` (not all of it)."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0


class TextStream:
    """The text of one row, fed with new tokens and read in pieces that never have to be taken back.

    `text` is what is certain so far, cut before a stop string; `stopped` says that one was found. The prompt's ids give
    the decoder its context.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int] = (), stop_strings: Sequence[str] = ()):
        self._decoder = StreamDecoder(tokenizer, prompt)
        self._stops = tuple(stop_strings)
        self._sent = 0
        self.text = ""
        self.stopped = False

    def _add(self, new: str) -> None:
        start = len(self.text)
        self.text += new
        found = (self.text.find(stop, max(0, start - len(stop) + 1)) for stop in self._stops)
        if ends := [at for at in found if at >= 0]:
            self.text, self.stopped = self.text[: min(ends)], True

    def push(self, tokens: Sequence[int]) -> int:
        """Take new tokens; returns how many were used (all, unless a stop string was completed by an earlier one)."""
        for used, token in enumerate(tokens, 1):
            self._add(self._decoder.push(token))
            if self.stopped:
                return used
        return len(tokens)

    def fork(self) -> "TextStream":
        """A stream of its own that goes on from the same text."""
        twin = copy(self)
        twin._decoder = self._decoder.fork()
        return twin

    def read(self, final: bool = False) -> str:
        """The text that is new since the last read and certain; with `final`, all that is left."""
        if final and not self.stopped:
            self._add(self._decoder.flush())
        held = 0 if final or self.stopped else max((overlap(self.text, stop) for stop in self._stops), default=0)
        piece = self.text[self._sent : len(self.text) - held]
        self._sent += len(piece)
        return piece


class Branches:
    """The texts of a search, in which several candidates may go on from one text.

    B rows · C candidates · S history length

    Args:
      rows: what the model read in each row. leads: what of it gives the decoder its context.
    """

    def __init__(
        self,
        tokenizer: Any,
        rows: Sequence[Sequence[int]],
        leads: Sequence[Sequence[int]],
        stop_strings: Sequence[str],
    ):
        self._start = [len(row) for row in rows]
        self._open: list[dict[tuple[int, ...], TextStream]] = [
            {(): TextStream(tokenizer, lead, stop_strings)} for lead in leads
        ]

    def grow(self, ids: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Which candidates' texts hold a stop string `[B, C]`.

        `ids [B, C, S]` holds the prompts and `count [B, C]` new tokens, one more than in the call before.
        """
        found = np.zeros(count.shape, bool)
        for i, known in enumerate(self._open):
            grown = {}
            for c, number in enumerate(count[i]):
                new = tuple(ids[i, c, self._start[i] : self._start[i] + number].tolist())
                if new not in grown:
                    grown[new] = known[new[:-1]].fork()
                    if not grown[new].stopped:  # what follows a stop string is nobody's text
                        grown[new].push(new[-1:])
                found[i, c] = grown[new].stopped
            self._open[i] = grown
        return found
