"""Reads a request: whole, in time, UTF-8, JSON and as its schema says; everything else is refused by name."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from research.core.names import meant

from .limits import Limits, Refusal
from .schema import ID, Schema

LONGEST = 300  # characters of a sentence that quotes what was given


async def read(request: Request, schema: Schema, limits: Limits) -> dict[str, Any]:
    """The body, checked; a field that is null counts as not given.

    Raises:
      Refusal: 400, 408 (too slow), 413 (too large) or 415 (not JSON).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which a form on another site cannot send unasked
        raise Refusal(415, f"the body must be application/json, given {kind or 'no content-type'}")
    return await run_in_threadpool(parse, await _bytes(request, limits), schema)


def parse(raw: bytes, schema: Schema) -> dict[str, Any]:
    """The fields of a body that are not null; raises Refusal as `read` does."""
    try:
        body = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
        json.dumps(body, ensure_ascii=False).encode("utf-8")  # halves of surrogate pairs come as escapes
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the body is not UTF-8: byte {error.start} is {raw[error.start]:#04x}") from None
    except UnicodeEncodeError:
        raise Refusal(400, "the body has half of a surrogate pair, which is no character") from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply") from None
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refusal(400, f"the body must be a JSON object, given {type(body).__name__}")
    check(body, schema)
    return {name: value for name, value in body.items() if value is not None}


def check(body: dict[str, Any], schema: Schema) -> None:
    """Raises Refusal where the body is not as the schema says."""
    known = schema["properties"]
    for name in body:
        if name not in known:
            raise Refusal(400, f"{name!r:.80} is not served{meant(name[:80], known)}", param=name[:80], code="unknown")
    given = {name: value for name, value in body.items() if value is not None}
    error = next(_Validator(schema).iter_errors(given), None)
    if error is not None:
        raise Refusal(400, _sentence(error), param=_place(error) or None, code="invalid_value")


def _any_of(validator: Any, choices: list[Schema], instance: Any, schema: Schema) -> Iterator[ValidationError]:
    """The same with one short error and no list of all that was wrong in each choice, which may be long."""
    if not any(validator.evolve(schema=choice).is_valid(instance) for choice in choices):
        yield ValidationError("is none of these")


def _items(validator: Any, items: Schema, instance: Any, schema: Schema) -> Iterator[ValidationError]:
    """The same, but token ids at once: they are many."""
    if items is not ID:
        yield from Draft202012Validator.VALIDATORS["items"](validator, items, instance, schema)
    elif not all(type(i) is int and 0 <= i <= ID["maximum"] for i in instance):
        yield ValidationError("has no token ids")


_Validator = validators.extend(Draft202012Validator, {"anyOf": _any_of, "items": _items})


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


async def _bytes(request: Request, limits: Limits) -> bytes:
    large = Refusal(413, f"the body may have at most {limits.body} bytes", headers={"Connection": "close"})
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body:
        raise large
    raw, size = bytearray(), 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limits.body:
                    raw += chunk
                elif size > 2 * limits.body:  # read a while longer: a client that is cut off hears no reason
                    raise large
    except TimeoutError:
        raise Refusal(
            408, f"the body did not come within {limits.body_seconds:g} seconds", headers={"Connection": "close"}
        ) from None
    if size > limits.body:
        raise large
    return bytes(raw)


def _place(error: ValidationError) -> str:
    """Where in the body, such as messages[0].role."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path).removeprefix(".")


def _sentence(error: ValidationError) -> str:
    place = _place(error) or "the body"
    if error.validator == "const":
        return f"{place} is not served other than as {json.dumps(error.validator_value)}; leave it out"
    if error.validator in ("anyOf", "enum") and "description" in error.schema:
        return f"{place} must be {error.schema['description']}"
    message = error.message
    if len(message) > LONGEST:
        message = f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"
    return f"{place}: {message}"
