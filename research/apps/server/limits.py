"""How much one client may ask for, and how a request is refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse


@dataclass(frozen=True)
class Limits:
    """What a request may be.

    Attributes:
      body: bytes. body_seconds: in which the body has to have come. seconds: in which the answer has to be written.
      n: answers to each prompt. choices: answers in all. max_tokens: new tokens of each; 0: what the window leaves.
      texts: texts of one request for embeddings.
    """

    body: int = 2**20
    body_seconds: float = 20.0
    seconds: float = 600.0
    n: int = 8
    choices: int = 64
    max_tokens: int = 0
    texts: int = 256

    def __post_init__(self) -> None:
        small = [
            name for name in ("body", "body_seconds", "seconds", "n", "choices", "texts") if getattr(self, name) <= 0
        ]
        if small or self.max_tokens < 0:
            raise ValueError(f"the limits {small or ['max_tokens']} are too small; given {self}")


DEFAULTS = Limits()


class Refusal(Exception):
    """An answer in the shape of OpenAI's errors."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers

    def told(self) -> dict[str, Any]:
        """The body of the answer."""
        kinds = {401: "authentication_error", 408: "timeout_error", 429: "rate_limit_error", 504: "timeout_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.told(), self.status, self.headers)
