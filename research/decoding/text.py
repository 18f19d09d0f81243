"""Text from tokens as they come: no half characters, nothing of a stop string.

A stop string may span tokens and may begin in the middle of one, so text that could still become a stop string is held
back, and a row ends with the token that completes one.
"""

from collections.abc import Sequence
from typing import Any

_HALF = "�"  # what a decoder writes for bytes that are not a whole character yet


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop` (not all of it)."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0


class TextStream:
    """The text of one row, fed with new tokens and read in pieces that never have to be taken back.

    `decode` is the tokenizer's; the prompt's ids are decoded in front, because some tokenizers treat the first token of
    a text differently (SentencePiece drops its space).
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int] = (), stop_strings: Sequence[str] = ()):
        self._decode = tokenizer.decode
        self._prompt = list(prompt)
        # Bytes at the end of a prompt may become one character with the first new token.
        self._skip = len(self._text([]).rstrip(_HALF))
        self._stops = tuple(stop_strings)
        self._tokens: list[int] = []
        self._sent = 0
        self.text = ""
        self.stopped = False

    def _text(self, tokens: list[int]) -> str:
        return self._decode(self._prompt + tokens) if self._prompt or tokens else ""

    def push(self, tokens: Sequence[int]) -> int:
        """Take new tokens; returns how many were used (all, unless a stop string was completed by an earlier one)."""
        if not self._stops:
            self._tokens.extend(tokens)
            self.text = self._text(self._tokens)[self._skip :]
            return len(tokens)
        for used, token in enumerate(tokens, 1):
            self._tokens.append(token)
            self.text = self._text(self._tokens)[self._skip :]
            ends = [at for at in (self.text.find(stop) for stop in self._stops) if at >= 0]
            if ends:
                self.text, self.stopped = self.text[: min(ends)], True
                return used
        return len(tokens)

    def read(self, final: bool = False) -> str:
        """The text that is new since the last read and certain; with `final`, all that is left."""
        safe = self.text
        if not (final or self.stopped):
            safe = safe.rstrip(_HALF)
            held = max((overlap(safe, stop) for stop in self._stops), default=0)
            safe = safe[: len(safe) - held]
        piece = safe[self._sent :]
        self._sent = max(self._sent, len(safe))
        return piece
