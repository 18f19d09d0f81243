"""What the host knows of one request: its tokens, its text so far, and what is told of it.

T prompt tokens · A alternatives
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from research.apps.serving import Ask, Piece, Told
from research.data.stream import StreamDecoder
from research.decoding.text import TextStream


class Words:
    """Each id as the text that it adds in the middle of a text; the name of the piece where that is none."""

    def __init__(self, tokenizer: Any):
        anchor = tokenizer.encode("a")[:1]

        @cache
        def word(token: int) -> str:
            text = StreamDecoder(tokenizer, anchor).push(token)
            return text or tokenizer.pieces([token])[0]

        self.of: Callable[[int], str] = word


class Asked:
    """One request on its way.

    Attributes:
      ids: what is read first. source: what an encoder reads, else None. budget: the most new tokens. read: how many of
      the ids are in `cache`. row: its wishes as arrays. count: new tokens so far.
    """

    def __init__(
        self,
        number: int,
        ask: Ask,
        ids: list[int],
        source: list[int] | None,
        budget: int,
        tokenizer: Any,
        words: Words,
        on_piece: Callable[[Piece], None],
    ):
        self.number, self.ask, self.ids, self.source, self.budget = number, ask, ids, source, budget
        self.on_piece, self._words, self._tokenizer = on_piece, words, tokenizer
        self.read, self.count = 0, 0
        self.cancelled = False
        self.cache: Any = None
        self.row: Any = None
        self.stream = TextStream(tokenizer, [] if source is not None else ids, ask.stop)
        self._of_prompt: list[Told] = []

    @property
    def held(self) -> int:
        """The most tokens that attention looks back at, its own or the encoder's."""
        return max(len(self.ids) + self.count, len(self.source or ()))

    @property
    def prompt_tokens(self) -> int:
        """What was read, by an encoder or a decoder."""
        return len(self.ids if self.source is None else self.source)

    def told(self, token: int, logprob: float | None, ids: np.ndarray, logprobs: np.ndarray) -> Told:
        """A token with as many alternatives as were asked for."""
        few = self.ask.logprobs or 0
        pairs = zip(ids[:few].tolist(), logprobs[:few].tolist(), strict=True)
        return Told(token, self._words.of(token), logprob, tuple((i, self._words.of(i), p) for i, p in pairs))

    def hear(self, first: int, written: Any) -> None:
        """Takes what a chunk that begins at `first` says of the prompt's next tokens, where they are to be told."""
        for i, token in enumerate(self.ids[first + 1 : first + 1 + len(written.token)]):
            more = written.alternatives[i], written.alternative_logprobs[i]
            self._of_prompt.append(self.told(token, float(written.logprob[i]), *more))

    def echo(self, hidden: int) -> None:
        """Tells the prompt itself; `hidden` virtual tokens in front of it are left out."""
        prompt = self.ask.prompt
        text = prompt if isinstance(prompt, str) else self._tokenizer.decode(self.ids[hidden:])
        blank = np.zeros(0)
        first = [self.told(self.ids[hidden], None, blank, blank)] if not hidden else []
        tokens = [*first, *self._of_prompt[max(0, hidden - 1) :]] if self.ask.logprobs is not None else []
        self.tell(text, tuple(tokens), None if self.budget else "length")

    def take(self, token: int, stops: frozenset[int], told: Told | None) -> bool:
        """A new token; tells what is certain of the text, and returns whether the request has ended."""
        self.count += 1
        if token not in stops:
            self.stream.push([token])
        finish = "stop" if token in stops or self.stream.stopped else "length" if self.count >= self.budget else None
        text = self.stream.read(final=finish is not None)
        if text or told or finish:
            self.tell(text, () if told is None else (told,), finish)
        return finish is not None

    def tell(self, text: str, tokens: tuple[Told, ...] = (), finish: str | None = None) -> None:
        """Calls back; a listener that raises is not asked again."""
        if self.cancelled and finish is None:
            return
        try:
            self.on_piece(Piece(text, tokens, finish, self.prompt_tokens, self.count))
        except Exception:
            self.cancelled = True
            raise
