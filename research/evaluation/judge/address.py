"""A judge behind an address that speaks OpenAI's chat completions (hosted, or served by vLLM, llama.cpp, ...)."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException

from .ask import NoAnswer

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Address:
    """Asks prompts in threads; one that fails for good becomes a `NoAnswer` with the reason.

    Attributes:
      url: up to and including the version, such as https://api.openai.com/v1.
      key_variable: the environment variable that holds the key; "" sends none. The key itself is never stored.
      timeout: seconds that the server may be silent. tries: of each prompt, `pause` · 2ᵏ seconds apart.
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

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"the judge's address must begin with http:// or https://, given {self.url!r}")
        if self.tries < 1 or self.workers < 1 or self.timeout <= 0:
            raise ValueError(
                f"a judge needs at least 1 try, 1 worker and a timeout above 0 seconds; "
                f"given {self.tries}, {self.workers}, {self.timeout:g}"
            )
        if self.key_variable and not os.environ.get(self.key_variable):
            raise ValueError(f"the environment variable {self.key_variable} is not set; it is to hold the judge's key")

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """One answer per prompt, in order."""
        with ThreadPoolExecutor(min(self.workers, max(len(prompts), 1))) as pool:
            return list(pool.map(self._answer, prompts))

    def _answer(self, prompt: str) -> str:
        reason = ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(min(self.pause * 2 ** (attempt - 1), LONGEST_PAUSE))
            try:
                return _text(self._post(prompt))
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"{error.code} {error.reason} {_line(error.read(400))}".strip()
                if error.code not in RETRIED:
                    return NoAnswer(f"{self.url}: {reason}")
            except (OSError, HTTPException, ValueError) as error:  # ValueError: no JSON, or not what was promised
                cause = error.reason if isinstance(error, urllib.error.URLError) else error
                reason = f"{type(cause).__name__}: {cause}"
        return NoAnswer(f"{self.url}: {reason} (tried {self.tries} times)")

    def _post(self, prompt: str) -> bytes:
        asked = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        headers = {"Content-Type": "application/json"}
        if self.key_variable:
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(asked).encode(), headers, method="POST")
        # The scheme was checked, and a redirect would carry the key to somewhere else: it is an error here.
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout) as response:
            return response.read()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args, **kwargs) -> None:
        return None


def _text(body: bytes) -> str:
    """The first choice's content; raises ValueError when the body is something else."""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(f"expected a chat completion, got {_line(body[:200])!r}") from None
    if not isinstance(content, str):
        raise ValueError(f"expected text in the first choice, got {type(content).__name__}")
    return content


def _line(body: bytes) -> str:
    return " ".join(body.decode("utf-8", "replace").split())
