"""A request's answers as OpenAI sends them: whole, or as server-sent events."""

import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from research.apps.serving import Engine, Piece

from .answers import Answers, unless_gone
from .chat import Chats
from .completions import Completions
from .limits import Limits, Refusal

Form = Chats | Completions


async def respond(request: Request, body: dict[str, Any], form: Form, engine: Engine, limits: Limits) -> Response:
    """Submits what the form asks and answers in its shape.

    Raises:
      Refusal: as `Answers`, or where more is asked than the limits allow.
    """
    if "stream_options" in body and not body.get("stream"):
        raise Refusal(400, "stream_options needs stream=true", param="stream_options")
    if len(form.asks) > limits.choices:
        raise Refusal(400, f"{len(form.asks)} answers are asked for; at most {limits.choices} are given", param="n")
    answers = Answers(engine, form.asks, limits.seconds, form.param)
    await answers.submit()
    head = {"id": f"{form.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": body["model"]}
    if body.get("stream"):
        counted = body.get("stream_options", {}).get("include_usage", False)
        return Events(_events(answers, form, head | {"object": form.piece_kind}, counted), answers)
    try:
        pieces = await unless_gone(request, answers.whole())
    finally:
        answers.stop()
    choices = [form.choice(place, piece) for place, piece in enumerate(pieces)]
    return JSONResponse(head | {"object": form.kind, "choices": choices, "usage": _usage(pieces, form.n)})


class Events(StreamingResponse):
    """Server-sent events; whenever they end, what still goes on is cancelled, also if they never began."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], answers: Answers) -> None:
        super().__init__(events, headers={"Cache-Control": "no-cache"})
        self.answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.answers.stop()


async def _events(answers: Answers, form: Form, head: dict[str, Any], counted: bool) -> AsyncIterator[str]:
    usage = {"usage": None} if counted else {}
    last: dict[int, Piece] = {}
    for choice in form.begin():
        yield _event(head | {"choices": [choice]} | usage)
    try:
        async for place, piece in answers.pieces():
            last[place] = piece
            for choice in form.piece(place, piece):
                yield _event(head | {"choices": [choice]} | usage)
    except Refusal as error:  # the status is sent already
        yield _event(error.told())
        return
    if counted:
        ended = [last[place] for place in sorted(last)]
        yield _event(head | {"choices": [], "usage": _usage(ended, form.n)})
    yield "data: [DONE]\n\n"


def _event(told: dict[str, Any]) -> str:
    return f"data: {json.dumps(told, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _usage(ended: Sequence[Piece], n: int) -> dict[str, int]:
    """Tokens: each prompt once, however many answers it has."""
    read = sum(piece.prompt_tokens for piece in ended[::n])
    written = sum(piece.completion_tokens for piece in ended)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
