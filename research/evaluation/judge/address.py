"""A judge behind an address that speaks OpenAI's chat completions (hosted, or served by vLLM, llama.cpp, ...)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from research.apps import remote
from research.apps.protocol import Options

from .ask import NoAnswer


@dataclass(frozen=True)
class Address:
    """Asks prompts in threads; one that fails for good becomes a `NoAnswer` with the reason.

    Attributes:
      url, key_variable, timeout, tries, pause: as `apps.remote.Address` has them.
      workers: prompts under way at once.
    """

    url: str
    model: str
    key_variable: str = ""
    temperature: float = 0.0
    max_tokens: int = 1024
    timeout: float = 60.0
    tries: int = 4
    pause: float = 1.0
    workers: int = 8
    _writer: remote.RemoteModel = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        address = remote.Address(self.url, self.key_variable, self.timeout, self.tries, self.pause)
        object.__setattr__(self, "_writer", remote.RemoteModel(address, self.model, workers=self.workers))

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """One answer per prompt, in order."""
        options = Options(max_new_tokens=self.max_tokens, temperature=self.temperature)
        found = self._writer.try_all([[{"role": "user", "content": prompt}] for prompt in prompts], options)
        return [NoAnswer(str(answer)) if isinstance(answer, ConnectionError) else answer.text for answer in found]
