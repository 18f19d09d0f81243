"""What the page asks of the server beside OpenAI's addresses."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from research.apps.labelling import Board
from research.apps.retrieval.prompt import Answer
from research.apps.serving import Engine
from research.data.files import read_jsonl
from research.data.rankings import Votes

from . import runs

STATIC = Path(__file__).with_name("static")
POLICY = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
FILES = ("/", *(f"/page/{path.name}" for path in sorted(STATIC.iterdir())))  # nothing secret is in them
MOST = 1 << 16  # bytes of a body; no text on this page is longer


@dataclass(frozen=True)
class Services:
    """What there is to show; what is None has no tab.

    Attributes:
      board: completions to rank. agreement: verdicts and labellers -> figures. ask: a question -> an answer with its
      passages. act: a task -> the trace of an agent. traces, runs: folders of JSONL traces and of training runs.
    """

    board: Board | None = None
    agreement: Callable[[Votes, Sequence[str]], Mapping[str, Any]] | None = None
    ask: Callable[[str], Answer] | None = None
    act: Callable[[str], Mapping[str, Any]] | None = None
    traces: Path | None = None
    runs: Path | None = None


class Missing(Exception):
    """What is asked for is not served here."""


def routes(engine: Engine, services: Services = Services()) -> list[Route | Mount]:
    """The page at / and what it reads below /page; a service that is not there answers 404, what does not fit 400."""
    page = Page(engine, services)
    read = {
        "about": page.about,
        "nearest": page.nearest,
        "labels/next": page.next_sample,
        "labels/summary": page.summary,
        "labels/export": page.export,
        "traces": page.traces,
        "runs": page.runs,
        "run": page.run,
    }
    done = {
        "attention": page.attention,
        "labels/rank": page.rank,
        "labels/undo": page.undo,
        "ask": page.ask,
        "act": page.act,
    }
    return [
        Route("/", index),
        *(Route(f"/page/{name}", _answering(there)) for name, there in read.items()),
        *(Route(f"/page/{name}", _answering(there), methods=["POST"]) for name, there in done.items()),
        Mount("/page", _Files(directory=STATIC)),
    ]


async def index(_: Request) -> Response:
    """The page itself."""
    return FileResponse(STATIC / "index.html", headers=POLICY)


class _Files(StaticFiles):
    """The page's files, with its policy."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(POLICY)
        return response


class Page:
    """What is at each address, as JSON or as a response of its own."""

    def __init__(self, engine: Engine, services: Services):
        self.engine, self.services = engine, services

    @property
    def board(self) -> Board:
        """The completions to rank."""
        return _need(self.services.board)

    async def about(self, _: Request) -> dict[str, Any]:
        """Which tabs there are, and which models."""
        s = self.services
        agents = s.act is not None or s.traces is not None
        tabs = {"labels": s.board, "documents": s.ask, "agents": agents or None, "runs": s.runs}
        told = {"tabs": ["playground", *(name for name, there in tabs.items() if there is not None)]}
        return {**told, "acts": s.act is not None, "models": list(self.engine.models), "window": self.engine.window}

    async def attention(self, request: Request) -> dict[str, Any]:
        """Attention maps of a text."""
        body = await _body(request, text=str, model=str)
        tokens, maps = await run_in_threadpool(self.engine.attention, body["text"], body["model"])
        return {"tokens": tokens, "maps": maps.round(4).tolist()}

    async def nearest(self, request: Request) -> list[Any]:
        """The tokens nearest to each virtual one."""
        model = request.query_params.get("model", self.engine.models[0])
        return await run_in_threadpool(self.engine.nearest, model)

    async def next_sample(self, request: Request) -> dict[str, Any]:
        """What a labeller is to rank next."""
        labeller = request.query_params.get("labeller", "")
        return {"guidelines": self.board.guidelines, **await run_in_threadpool(self.board.next, labeller)}

    async def rank(self, request: Request) -> dict[str, Any]:
        """Remembers ranks."""
        body = await _body(request, labeller=str, id=str, ranks=list)
        await run_in_threadpool(self.board.rank, body["labeller"], body["id"], body["ranks"])
        return {}

    async def undo(self, request: Request) -> dict[str, Any]:
        """Forgets a labeller's last ranks."""
        labeller = (await _body(request, labeller=str))["labeller"]
        return {"id": await run_in_threadpool(self.board.undo, labeller)}

    async def summary(self, _: Request) -> dict[str, Any]:
        """How many each labeller has done, how far they agree, where they do not."""
        who = self.board.labellers()
        told = {"labellers": {name: self.board.next(name)["done"] for name in who}, "conflicts": self.board.conflicts()}
        try:
            agreement = self.services.agreement if len(who) > 1 else None
            return told | {"agreement": agreement and dict(agreement(self.board.votes(), who))}
        except ValueError as error:  # nothing in common yet
            return told | {"agreement": {"not yet": str(error)}}

    async def export(self, request: Request) -> Response:
        """All preferences as a file."""
        text = self.board.export(request.query_params.get("conflicts", "share"))
        return PlainTextResponse(text, headers={"Content-Disposition": 'attachment; filename="preferences.jsonl"'})

    async def ask(self, request: Request) -> dict[str, Any]:
        """An answer from the documents, and the passages it stands on."""
        ask = _need(self.services.ask)
        answer = await run_in_threadpool(ask, (await _body(request, question=str))["question"])
        passages = [
            {"title": c.title, "heading": c.heading, "source": c.source, "start": c.start, "text": c.text}
            for c in (hit.chunk for hit in answer.passages)
        ]
        return {"text": answer.text, "passages": passages, "wrong": answer.wrong, "dropped": answer.dropped}

    async def act(self, request: Request) -> Mapping[str, Any]:
        """The trace of an agent at work."""
        act = _need(self.services.act)
        return await run_in_threadpool(act, (await _body(request, task=str))["task"])

    async def traces(self, _: Request) -> list[dict[str, Any]]:
        """All traces of the folder, with the files they are in."""
        files = sorted(_need(self.services.traces).glob("*.jsonl"))
        return [{"file": path.name, **row} for path in files if path.stat().st_size for row in read_jsonl(path)]

    async def runs(self, _: Request) -> list[str]:
        """The names of the runs."""
        return await run_in_threadpool(runs.found, _need(self.services.runs))

    async def run(self, request: Request) -> dict[str, Any]:
        """The figures of one run from a byte on."""
        begin = request.query_params.get("begin", "0")
        if not begin.isdecimal():
            raise ValueError(f"begin is a number of bytes, given {begin!r}")
        folder, name = _need(self.services.runs), request.query_params.get("name", "")
        return await run_in_threadpool(runs.rows, folder, name, int(begin))


def _need(service: Any) -> Any:
    if service is None:
        raise Missing
    return service


def _answering(there: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    """What is there as a response, or why not."""

    async def answer(request: Request) -> Response:
        try:
            found = await there(request)
        except Missing:
            return JSONResponse({"error": {"message": "this is not served here"}}, status_code=404)
        except ValueError as error:
            return JSONResponse({"error": {"message": str(error)}}, status_code=400)
        return found if isinstance(found, Response) else JSONResponse(found)

    return answer


async def _body(request: Request, **fields: type) -> dict[str, Any]:
    """A JSON object with these fields; said to be JSON, which no form of another site can say."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise ValueError("the body must be of the type application/json")
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MOST:
            raise ValueError(f"at most {MOST} bytes are read here")
    try:
        body = json.loads(data)
    except ValueError:
        raise ValueError("the body is no JSON") from None
    if not isinstance(body, dict):
        raise ValueError("the body is no JSON object")
    for name, kind in fields.items():
        if not isinstance(body.get(name), kind):
            raise ValueError(f"{name!r} must be a {kind.__name__}, given {type(body.get(name)).__name__}")
    return body
