"""The addresses of the server: who may come in, what is at each, and what is told of it."""

import asyncio
import base64
import hmac
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from research.apps.page import FILES, Services, routes
from research.apps.serving import Engine
from research.core.names import meant

from . import metrics, openapi
from .answers import unless_gone
from .body import read
from .chat import Chats
from .completions import Completions
from .limits import DEFAULTS, Limits, Refusal
from .respond import respond
from .schema import schemas

OPEN = ("/health", "/openapi.json")  # what needs no key


class Embeddings(NamedTuple):
    """The embedding model behind `Engine.embed`: its name for clients, and the tokens that it reads of texts."""

    name: str
    count: Callable[[Sequence[str]], int]


def app(
    engine: Engine,
    *,
    key: str | None = None,
    limits: Limits = DEFAULTS,
    embeddings: Embeddings | None = None,
    page: Services | None = None,
    grace: float = 30.0,
) -> Starlette:
    """The server's ASGI application; when it ends, the engine is closed.

    Args:
      key: what clients send as a bearer token; None: anyone may ask. page: what the page at / shows; None: no page.
      grace: seconds that running requests have when it ends.

    Raises:
      ValueError: a key that no client can send.
    """
    if key is not None and (not key or key != key.strip() or not (key.isascii() and key.isprintable())):
        raise ValueError("an API key is ASCII text without spaces around it, as headers carry it, and not empty")
    server = Server(engine, limits, embeddings, key is not None)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(engine.close, grace)

    return Starlette(
        routes=[
            Route("/v1/models", server.models),
            Route("/v1/models/{model:path}", server.model),
            Route("/v1/completions", server.completions, methods=["POST"]),
            Route("/v1/chat/completions", server.chats, methods=["POST"]),
            Route("/v1/embeddings", server.embeddings, methods=["POST"]),
            Route("/health", server.health),
            Route("/metrics", server.metrics),
            Route("/openapi.json", server.document),
            *(routes(engine, page) if page is not None else ()),
        ],
        middleware=[Middleware(Gate, key=key, responses=server.responses)],
        exception_handlers={
            Refusal: _refused,
            HTTPException: _no_such,
            ClientDisconnect: _gone,
            Exception: _failed,
        },
        lifespan=lifespan,
    )


class Server:
    """What is at each address."""

    def __init__(self, engine: Engine, limits: Limits, embeds: Embeddings | None, keyed: bool) -> None:
        self.engine, self.limits, self.embeds = engine, limits, embeds
        self.schemas = schemas(limits)
        self.described = openapi.document(self.schemas, OPEN if keyed else None)
        self.started = int(time.time())
        self.responses: Counter[tuple[str, int]] = Counter()
        self.embedding = asyncio.Lock()  # one at a time, so that others find a free thread

    async def health(self, _: Request) -> Response:
        """Whether it serves."""
        return JSONResponse({"status": "ok"})

    async def document(self, _: Request) -> Response:
        """The OpenAPI document."""
        return JSONResponse(self.described)

    async def metrics(self, _: Request) -> Response:
        """Counters and gauges."""
        return Response(metrics.text(self.engine.figures(), self.responses), media_type=metrics.MEDIA_TYPE)

    async def models(self, _: Request) -> Response:
        """All models."""
        return JSONResponse({"object": "list", "data": [self._told(name) for name in self._names()]})

    async def model(self, request: Request) -> Response:
        """One model."""
        name = request.path_params["model"]
        if name not in self._names():
            raise self._unknown(name)
        return JSONResponse(self._told(name))

    async def completions(self, request: Request) -> Response:
        """Continues texts."""
        body = await read(request, self.schemas["Completion"], self.limits)
        return await respond(request, body, Completions(body), self.engine, self.limits)

    async def chats(self, request: Request) -> Response:
        """Answers a chat."""
        body = await read(request, self.schemas["ChatCompletion"], self.limits)
        return await respond(request, body, Chats(body), self.engine, self.limits)

    async def embeddings(self, request: Request) -> Response:
        """Texts as vectors."""
        body = await read(request, self.schemas["Embedding"], self.limits)
        if self.embeds is None or body["model"] != self.embeds.name:
            raise self._unknown(body["model"], [self.embeds.name] if self.embeds else [])
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        rows, tokens = await unless_gone(request, self._embed(self.embeds, texts))
        as_text = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": i, "embedding": _base64(row) if as_text else row.tolist()}
            for i, row in enumerate(rows)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": body["model"], "usage": usage})

    async def _embed(self, embeds: Embeddings, texts: list[str]) -> tuple[np.ndarray, int]:
        try:
            async with asyncio.timeout(self.limits.seconds), self.embedding:
                return await run_in_threadpool(self.engine.embed, texts), await run_in_threadpool(embeds.count, texts)
        except TimeoutError:
            raise Refusal(504, f"not answered within {self.limits.seconds:g} seconds", code="timeout") from None
        except ValueError as error:
            raise Refusal(400, str(error), param="input", code="invalid_value") from None

    def _names(self) -> list[str]:
        return [*self.engine.models, *([self.embeds.name] if self.embeds else [])]

    def _told(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.started, "owned_by": "lifecycle"}

    def _unknown(self, name: str, have: Sequence[str] | None = None) -> Refusal:
        known = self._names() if have is None else have
        message = f"unknown model {name[:80]!r}{meant(name[:80], known)}; have {list(known)}"
        return Refusal(404, message, param="model", code="model_not_found")


class Gate:
    """Lets in who has the key, and counts the answers by address and status."""

    def __init__(self, inner: ASGIApp, key: str | None, responses: Counter[tuple[str, int]]) -> None:
        self.inner, self.responses = inner, responses
        self.key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        path = scope["path"]
        address = "/v1/models/{model}" if path.startswith("/v1/models/") else path
        address = address if address in openapi.ADDRESSES else "other"

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.responses[address, message["status"]] += 1
            await send(message)

        inner = self.inner
        if self.key is not None and path not in (*OPEN, *FILES) and not self._knows(scope):
            message = "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'"
            refusal = Refusal(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
            inner = refusal.response()
        try:
            await inner(scope, receive, counting)
        except Exception:
            self.responses[address, 500] += 1  # what the layer around this one answers
            raise

    def _knows(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, token = given.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(token.strip(), self.key or b"")


def _base64(row: np.ndarray) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = [address for address in openapi.ADDRESSES if "{" not in address]
    path = request.url.path[:80]
    message = {
        404: f"there is nothing at {path!r}{meant(path, known)}",
        405: f"{request.method} is not for {path!r}; it takes {(error.headers or {}).get('Allow', 'another method')}",
    }.get(error.status_code, error.detail)
    return Refusal(error.status_code, message, headers=error.headers).response()


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; what log files know as "client closed request"


async def _failed(_: Request, error: Exception) -> Response:
    return Refusal(500, f"a fault of the server: {type(error).__name__}").response()
