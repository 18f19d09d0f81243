"""The answers of one request while they are written; whatever ends the request frees what they hold."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from research.apps.serving import Ask, Engine, Full, Piece, UnknownModel

from .limits import Refusal

T = TypeVar("T")


class Answers:
    """What was asked for together: submitted together, and cancelled together by `stop`."""

    def __init__(self, engine: Engine, asks: Sequence[Ask], seconds: float, param: str) -> None:
        self.engine, self.asks, self.param = engine, asks, param
        self.seconds, self.deadline = seconds, time.monotonic() + seconds
        self.loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self.numbers: list[int] = []
        self.stopped = False

    async def submit(self) -> None:
        """Queues all of them, or none.

        Raises:
          Refusal: 400, 404 (unknown model) or 429 (the queue is full).
        """
        try:
            await run_in_threadpool(self._submit)  # tokenizing takes a while
        except BaseException:
            self.stop()
            raise

    def _submit(self) -> None:
        for place, ask in enumerate(self.asks):
            try:
                self.numbers.append(self.engine.submit(ask, partial(self._put, place)))
            except Full as error:
                wait = {"Retry-After": "1"}
                raise Refusal(429, f"{error}; try again later", code="queue_full", headers=wait) from None
            except UnknownModel as error:
                raise Refusal(404, str(error), param="model", code="model_not_found") from None
            except ValueError as error:
                code = "context_length_exceeded" if self._too_long(ask) else "invalid_value"
                raise Refusal(400, str(error), param=self.param, code=code) from None
            if self.stopped:  # meanwhile; `stop` may have come before the number was written down
                self.engine.cancel(self.numbers[-1])
                return

    def _too_long(self, ask: Ask) -> bool:
        """Whether prompt and answer do not fit: clients look for the code, to ask again with less."""
        try:
            return self.engine.count(ask.prompt, ask.tools) + (ask.max_new_tokens or 1) > self.engine.window
        except ValueError:
            return False

    def _put(self, place: int, piece: Piece) -> None:
        if not self.stopped:  # the loop may be gone when a late piece comes
            self.loop.call_soon_threadsafe(self.queue.put_nowait, (place, piece))

    def stop(self) -> None:
        """Cancels what still goes on."""
        self.stopped = True
        for number in list(self.numbers):
            self.engine.cancel(number)

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """(place, piece) as they come, until all have ended.

        Raises:
          Refusal: 500 (the engine failed), 503 (it ends) or 504 (out of time).
        """
        left = len(self.asks)
        while left:
            try:
                async with asyncio.timeout(self.deadline - time.monotonic()):
                    place, piece = await self.queue.get()
            except TimeoutError:
                raise Refusal(504, f"not answered within {self.seconds:g} seconds", code="timeout") from None
            if piece.finish == "error":
                raise Refusal(500, piece.text, code="engine_error")
            if piece.finish == "cancelled":
                raise Refusal(503, "the server ends", code="shutting_down")
            yield place, piece
            left -= piece.finish is not None

    async def whole(self) -> list[Piece]:
        """All pieces of each joined to one."""
        found: list[list[Piece]] = [[] for _ in self.asks]
        async for place, piece in self.pieces():
            found[place].append(piece)
        return [
            pieces[-1]._replace(
                text="".join(piece.text for piece in pieces),
                tokens=tuple(token for piece in pieces for token in piece.tokens),
            )
            for pieces in found
        ]


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; raises ClientDisconnect, and ends it, where the client leaves before."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
