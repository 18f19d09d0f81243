"""What a server asks of the engine behind it: many requests at once, each told piece by piece, none of them JAX.

`decoding.engine.Engine` is it for a model here. All methods may be called from any thread.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from .protocol import Message


@dataclass(frozen=True)
class Ask:
    """One text that is asked for.

    Attributes:
      prompt: text that is continued, token ids, or a chat that is answered. model: which of `Engine.models`.
      tools: as OpenAI writes them, for the chat template. max_new_tokens: None: what the window leaves.
      temperature: 0 is greedy. top_p, top_k, min_p, repetition_penalty: off as they stand.
      stop: texts that end it, not returned. seed: the same gives the same text.
      logprobs: how many alternatives are told beside each token; None: not even the token's own.
      echo: the prompt's tokens are told too, in a first piece.
    """

    prompt: str | Sequence[int] | Sequence[Message]
    model: str
    tools: Sequence[Mapping[str, Any]] = ()
    max_new_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    logprobs: int | None = None
    echo: bool = False


class Told(NamedTuple):
    """One token: its id, its text, its log-probability (None: the first of a prompt) and the likeliest ones there."""

    id: int
    text: str
    logprob: float | None
    alternatives: tuple[tuple[int, str, float], ...] = ()


class Piece(NamedTuple):
    """What was written since the last piece.

    Attributes:
      text: certain, never taken back. tokens: empty unless logprobs were asked for.
      finish: None while it goes on; "stop", "length", "cancelled", or "error", of which `text` then says the reason.
      prompt_tokens, completion_tokens: so far.
    """

    text: str
    tokens: tuple[Told, ...] = ()
    finish: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Full(Exception):
    """The queue holds as many requests as it may; ask again later."""


class UnknownModel(ValueError):
    """There is no model or adapter of that name."""


class Engine(Protocol):
    """Whatever serves.

    Attributes:
      models: the base model's name, then those of its adapters. window: tokens of a prompt and its answer together.
    """

    models: Sequence[str]
    window: int

    def submit(self, ask: Ask, on_piece: Callable[[Piece], None]) -> int:
        """Queues a request; `on_piece` is called from the engine's thread until a piece has a `finish`.

        Returns: the number by which it can be cancelled.

        Raises:
          Full: the queue is full. UnknownModel. ValueError: what is wrong with the request, before any work.
        """
        ...

    def cancel(self, number: int) -> None:
        """Frees its slot; its last piece has finish "cancelled". Nothing happens where it has ended."""
        ...

    def count(self, prompt: str | Sequence[int] | Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> int:
        """The tokens of a prompt."""
        ...

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[N, width] float32 unit rows. Raises ValueError where no embedding model is served."""
        ...

    def attention(self, text: str, model: str) -> tuple[list[str], np.ndarray]:
        """The text's tokens and attention maps [layers, heads, T, T]."""
        ...

    def nearest(self, model: str, k: int = 5) -> list[list[tuple[str, float]]]:
        """For each virtual token of the adapter's soft prompt its nearest tokens and their cosines; else empty."""
        ...

    def figures(self) -> dict[str, float]:
        """Counters and gauges: queued, running, slots, requests, prompt_tokens, new_tokens, steps, compilations."""
        ...

    def close(self, grace: float = 30.0) -> None:
        """Takes nothing new, waits `grace` seconds for what runs, then ends."""
        ...
