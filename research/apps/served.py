"""A model behind an engine as a `LanguageModel`: documents and agents on the page take their slots like all others."""

import queue
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .protocol import DEFAULTS, Options, Prompt, Reply, Token, Usage
from .serving import Ask, Engine, Full, Piece


class Heard(NamedTuple):
    """A request and what has come of it."""

    number: int
    arrived: "queue.SimpleQueue[Piece]"


class ServedModel:
    """See `protocol.LanguageModel`; a reply is asked for when `write` or `stream` is called, and all at once.

    Attributes:
      seconds: how long a next piece may take.
    """

    def __init__(self, engine: Engine, name: str, *, seconds: float = 600.0):
        if name not in engine.models:
            raise ValueError(f"the engine has no model {name!r}; have {list(engine.models)}")
        self.engine, self.name, self.window, self.seconds = engine, name, engine.window, seconds

    def count(self, prompt: Prompt, tools: Sequence[Mapping[str, Any]] = ()) -> int:
        """The tokens of a prompt."""
        return self.engine.count(prompt, tools)

    def write(self, prompts: Sequence[Prompt], options: Options = DEFAULTS) -> list[Reply]:
        """One reply each; the i-th prompt draws with seed + i.

        Raises:
          ValueError: a prompt that cannot be served. ConnectionError: a full queue, or an answer that never came.
        """
        asked: list[Heard] = []
        try:
            for i, prompt in enumerate(prompts):
                asked.append(self._submit(prompt, options, i))
            return [self._reply(self._pieces(one)) for one in asked]
        except Full as error:
            raise ConnectionError(f"{self.name}: {error}") from None
        finally:
            for one in asked:  # nothing happens to those that have ended
                self.engine.cancel(one.number)

    def stream(self, prompt: Prompt, options: Options = DEFAULTS) -> Iterator[str]:
        """The pieces of one reply; whoever stops listening frees its slot."""
        one = self._submit(prompt, options, 0)
        try:
            yield from (piece.text for piece in self._pieces(one) if piece.text)
        finally:
            self.engine.cancel(one.number)

    def _submit(self, prompt: Prompt, options: Options, place: int) -> "Heard":
        arrived: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        ask = Ask(
            prompt,
            self.name,
            tools=options.tools,
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            stop=options.stop,
            seed=options.seed + place,
            logprobs=0 if options.logprobs else None,
        )
        return Heard(self.engine.submit(ask, arrived.put), arrived)

    def _pieces(self, one: "Heard") -> Iterator[Piece]:
        while True:
            try:
                piece = one.arrived.get(timeout=self.seconds)
            except queue.Empty:
                raise ConnectionError(f"{self.name} was silent for {self.seconds:g} s") from None
            if piece.finish in ("error", "cancelled"):
                raise ConnectionError(f"{self.name}: {piece.text or piece.finish}")
            yield piece
            if piece.finish is not None:
                return

    def _reply(self, pieces: Iterator[Piece]) -> Reply:
        heard = list(pieces)
        tokens = tuple(Token(t.text, t.logprob or 0.0) for piece in heard for t in piece.tokens)
        usage = Usage(heard[-1].prompt_tokens, heard[-1].completion_tokens)
        return Reply("".join(piece.text for piece in heard), heard[-1].finish or "stop", usage, tokens)
