"""A language model as an application sees it: text or chat in; text, log-probabilities and usage out.

Two backs give it: `decoding.local.LocalModel`, a model in this process, and `apps.remote.RemoteModel`, any
OpenAI-compatible address.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

Message = Mapping[str, Any]
"""{"role": "system" | "user" | "assistant" | "tool", "content": ...}, as chat templates read it."""

Prompt = str | Sequence[Message]
"""Text that is continued, or a chat that is answered."""


class Token(NamedTuple):
    """A written token and its natural log-probability under the model (before temperature and cuts)."""

    text: str
    logprob: float


class Usage(NamedTuple):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int


class Reply(NamedTuple):
    """What a model wrote.

    Attributes:
      text: without the stop string. finish: "stop" (an end token or a stop string), "tool_calls" or "length".
      tokens: empty unless `Options.logprobs`; their texts together begin with what was written.
      calls: the tools that it asks for, as `apps.calls` has them; empty unless `Options.tools`.
    """

    text: str
    finish: str
    usage: Usage
    tokens: tuple[Token, ...] = ()
    calls: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Options:
    """How to write; temperature 0 is greedy, and the same seed gives the same text.

    Attributes:
      tools: what a chat may call, as OpenAI writes them; a text that is continued has none.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    logprobs: bool = False
    tools: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"max_new_tokens >= 1, temperature >= 0 and 0 < top_p <= 1 are needed, given {self}")


DEFAULTS = Options()


@runtime_checkable
class LanguageModel(Protocol):
    """Whatever writes.

    Attributes:
      name: for traces. window: the tokens that prompt and answer may have together; None: not known.
    """

    name: str
    window: int | None

    def count(self, prompt: Prompt, tools: Sequence[Mapping[str, Any]] = ()) -> int:
        """The tokens of a prompt as the model reads it, with the tools that it is offered."""
        ...

    def write(self, prompts: Sequence[Prompt], options: Options = DEFAULTS) -> list[Reply]:
        """One reply each; the noise of a prompt depends on the seed and its place, not on its neighbours.

        Raises:
          ValueError: a prompt that leaves no room in the window. ConnectionError: an answer that never came.
        """
        ...

    def stream(self, prompt: Prompt, options: Options = DEFAULTS) -> Iterator[str]:
        """The pieces of one reply as they are written; together they are its text."""
        ...
