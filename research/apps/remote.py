"""A model at an address that speaks OpenAI's protocol (hosted, or served by vLLM, llama.cpp, ...)."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any, TypeVar

from .protocol import DEFAULTS, Options, Prompt, Reply, Token, Usage

T = TypeVar("T")
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Address:
    """Where and how to ask; what may pass is asked again.

    Attributes:
      url: up to and including the version, such as https://api.openai.com/v1.
      key_variable: the environment variable that holds the key; "" sends none. The key itself is never stored.
      timeout: seconds that the server may be silent. tries: of each request, `pause` · 2ᵏ seconds apart.
    """

    url: str
    key_variable: str = ""
    timeout: float = 60.0
    tries: int = 4
    pause: float = 1.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"a model's address must begin with http:// or https://, given {self.url!r}")
        if self.tries < 1 or self.timeout <= 0:
            raise ValueError(
                f"an address needs at least 1 try and a timeout above 0 seconds; given {self.tries}, {self.timeout:g}"
            )
        if self.key_variable and not os.environ.get(self.key_variable):
            raise ValueError(f"the environment variable {self.key_variable} is not set; it is to hold the key")

    def ask(self, path: str, body: Mapping[str, Any], read: Callable[[HTTPResponse], T]) -> T:
        """What `read` makes of the response to a POST; a ValueError of it is another answer than was promised.

        Raises:
          ConnectionError: the reason, in one line, once it will not pass or all tries are used.
        """
        reason = ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(min(self.pause * 2 ** (attempt - 1), LONGEST_PAUSE))
            try:
                return read(self._open(path, body))
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"{error.code} {error.reason} {_line(error.read(400))}".strip()
                if error.code not in RETRIED:
                    raise ConnectionError(f"{self.url}: {reason}") from None
            except (OSError, HTTPException, ValueError) as error:
                cause = error.reason if isinstance(error, urllib.error.URLError) else error
                reason = f"{type(cause).__name__}: {cause}"
        raise ConnectionError(f"{self.url}: {reason} (tried {self.tries} times)")

    def _open(self, path: str, body: Mapping[str, Any]) -> HTTPResponse:
        headers = {"Content-Type": "application/json"}
        if self.key_variable:
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        where = f"{self.url.rstrip('/')}/{path}"
        request = urllib.request.Request(where, json.dumps(body).encode(), headers, method="POST")
        # The scheme was checked, and a redirect would carry the key to somewhere else: it is an error here.
        return urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class RemoteModel:
    """Texts are continued by /completions, chats answered by /chat/completions; a `protocol.LanguageModel`.

    Args:
      name: the model's, as the server knows it. window: its tokens, if known.
      count_tokens: text -> tokens, such as `len(tokenizer.encode(text))`. Default: UTF-8 bytes, which no byte-level
        tokenizer exceeds.
      workers: prompts under way at once.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        *,
        window: int | None = None,
        count_tokens: Callable[[str], int] | None = None,
        workers: int = 8,
    ):
        if workers < 1:
            raise ValueError(f"a model is asked by at least 1 worker, given {workers}")
        self.name, self.window, self._address, self._workers = name, window, address, workers
        self._count = count_tokens or (lambda text: len(text.encode()))

    def count(self, prompt: Prompt, tools: Sequence[Mapping[str, Any]] = ()) -> int:
        if isinstance(prompt, str):
            return self._count(prompt)
        return self._count(json.dumps([*prompt, *tools], ensure_ascii=False))

    def write(self, prompts: Sequence[Prompt], options: Options = DEFAULTS) -> list[Reply]:
        replies = []
        for answer in self.try_all(prompts, options):
            if isinstance(answer, ConnectionError):
                raise answer
            replies.append(answer)
        return replies

    def try_all(self, prompts: Sequence[Prompt], options: Options = DEFAULTS) -> list[Reply | ConnectionError]:
        """One reply each or, where none came, the reason."""

        def answer(place: int) -> Reply | ConnectionError:
            path, body = self._request(prompts[place], options, place)
            try:
                return self._address.ask(path, body, lambda response: _reply(response, path))
            except ConnectionError as error:
                return error

        with ThreadPoolExecutor(min(self._workers, max(len(prompts), 1))) as pool:
            return list(pool.map(answer, range(len(prompts))))

    def stream(self, prompt: Prompt, options: Options = DEFAULTS) -> Iterator[str]:
        path, body = self._request(prompt, options, 0)
        return self._pieces(path, {**body, "stream": True})

    def _request(self, prompt: Prompt, options: Options, place: int) -> tuple[str, dict[str, Any]]:
        tokens = self.count(prompt, options.tools)
        if self.window is not None and tokens >= self.window:
            raise ValueError(f"{self.name}: a prompt of {tokens} tokens leaves no room in a window of {self.window}")
        body: dict[str, Any] = {"model": self.name, "max_tokens": options.max_new_tokens}
        body["temperature"] = options.temperature
        if options.temperature > 0:  # a server draws the same for the same seed: each place has its own
            body |= {"top_p": options.top_p, "seed": options.seed * 100_003 + place}
        if options.stop:
            body["stop"] = list(options.stop)
        if isinstance(prompt, str):
            if options.tools:
                raise ValueError("a text that is continued has no place for tools; give a chat")
            return "completions", body | {"prompt": prompt} | ({"logprobs": 1} if options.logprobs else {})
        body["messages"] = [dict(message) for message in prompt]
        if options.tools:
            body["tools"] = list(options.tools)
        return "chat/completions", body | ({"logprobs": True} if options.logprobs else {})

    def _pieces(self, path: str, body: Mapping[str, Any]) -> Iterator[str]:
        response = self._address.ask(path, body, lambda response: response)
        try:
            with response:
                finish = None
                for line in response:
                    data = line.decode("utf-8", "replace").strip().removeprefix("data:").strip()
                    if not line.startswith(b"data:"):
                        continue
                    if data == "[DONE]":
                        return
                    event = json.loads(data)
                    if "error" in event:
                        raise ValueError(f"{event['error']}")
                    for choice in event["choices"][:1]:  # the last event may bring usage alone
                        finish = finish or choice.get("finish_reason")
                        text = choice["text"] if path == "completions" else choice["delta"].get("content")
                        if text:
                            yield text
                if finish is None:
                    raise ValueError("it has no end")
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            reason = f"the stream broke off: {type(error).__name__}: {error}"
            raise ConnectionError(f"{self._address.url}: {reason}") from None


def _reply(response: HTTPResponse, path: str) -> Reply:
    """The first choice; raises ValueError where the body is something else."""
    with response:
        body = response.read()
    try:
        value = json.loads(body)
        choice = value["choices"][0]
        told, usage = choice.get("logprobs") or {}, value.get("usage") or {}
        calls: Sequence[Mapping[str, Any]] = ()
        if path == "completions":
            text = choice["text"]
            tokens = list(zip(told.get("tokens") or (), told.get("token_logprobs") or (), strict=True))
        else:
            message = choice["message"]
            calls = message.get("tool_calls") or ()
            text = "" if calls and message.get("content") is None else message["content"]
            tokens = [(token["token"], token["logprob"]) for token in told.get("content") or ()]
        spent = Usage(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
        finish = choice.get("finish_reason") or "stop"
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise ValueError(f"expected {path}, got {_line(body[:200])!r}") from None
    if not isinstance(text, str):
        raise ValueError(f"expected text in the first choice, got {type(text).__name__}")
    return Reply(text, finish, spent, tuple(Token(*token) for token in tokens), tuple(calls))


def _line(body: bytes) -> str:
    return " ".join(body.decode("utf-8", "replace").split())
