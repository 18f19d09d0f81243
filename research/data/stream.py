"""Text from a growing list of ids, emitted as soon as it is certain and never with half a character."""

from collections.abc import Iterable, Iterator
from copy import copy

# A character has at most four bytes, so at most three trailing marks can still turn into something else.
_UNCERTAIN = 3


class StreamDecoder:
    """Incremental `decode`: `push(id)` returns the new text, `flush()` what was held back.

    A decoder may look at the neighbour before (a leading space, a `##` piece), so each call decodes a short window that
    begins with the tokens of the text emitted last. `context` holds ids in front of the stream (the prompt).
    """

    def __init__(self, tokenizer, context: Iterable[int] = ()):
        self._tokenizer = tokenizer
        self._window = [int(i) for i in context][-16:]
        self._known = len(self._window)  # tokens of the window whose text is out
        self._emitted = len(tokenizer.decode(self._window).rstrip("\ufffd")) if self._window else 0

    def push(self, token: int) -> str:
        """Add one id; returns the text that is now certain (often empty inside a character)."""
        self._window.append(int(token))
        text = self._tokenizer.decode(self._window)
        held = len(text) - len(text.rstrip("\ufffd"))
        certain = len(text) - min(held, _UNCERTAIN)
        new = text[self._emitted : certain]
        self._emitted = max(self._emitted, certain)
        if new and not held:
            self._window = self._window[self._known :]
            self._known = len(self._window)
            self._emitted = len(self._tokenizer.decode(self._window))
        return new

    def fork(self) -> "StreamDecoder":
        """A decoder of its own that goes on from the same ids."""
        twin = copy(self)
        twin._window = list(self._window)
        return twin

    def flush(self) -> str:
        """The rest, broken bytes as replacement characters; the stream is over."""
        text = self._tokenizer.decode(self._window)
        new = text[self._emitted :]
        self._emitted = len(text)
        return new


def decode_stream(tokenizer, ids: Iterable[int], context: Iterable[int] = ()) -> Iterator[str]:
    """The texts of a stream of ids, one by one, without the empty ones."""
    decoder = StreamDecoder(tokenizer, context)
    for token in ids:
        if new := decoder.push(token):
            yield new
    if rest := decoder.flush():
        yield rest
