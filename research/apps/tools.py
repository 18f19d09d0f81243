"""Tools: Python functions that a model may call, described to it by their signatures.

A tool runs in a thread. One that is too slow is left behind there, since Python cannot end a thread: what must be ended
belongs in a process of its own, as `python` has it.
"""

import inspect
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from research.core.names import meant

_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True)
class Tool:
    """A function with what a model is told of it; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: Callable[..., Any]

    @property
    def specification(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        told = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": told}


class Observation(NamedTuple):
    """What a call gave: its result, or why there is none."""

    text: str
    ok: bool


def tool(function: Callable[..., Any], name: str = "") -> Tool:
    """A tool from a function's signature and docstring: its first paragraph, and `name: text` below "Args:".

    Annotations may be str, int, float, bool, list[...], dict[str, ...], Literal[...] and `... | None`.

    Raises:
      ValueError: a parameter without an annotation, or with another one; *args or **kwargs.
    """
    name = name or function.__name__
    hints = get_type_hints(function)
    first, told = _docstring(function)
    properties, required = {}, []
    for parameter in inspect.signature(function).parameters.values():
        where = f"tool {name}, parameter {parameter.name}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ValueError(f"{where}: tools are called by name; *args, **kwargs and positional-only do not fit")
        if parameter.name not in hints:
            raise ValueError(f"{where}: needs a type annotation")
        properties[parameter.name] = _schema(hints[parameter.name], where)
        if parameter.name in told:
            properties[parameter.name]["description"] = told[parameter.name]
        if parameter.default is not parameter.empty:
            properties[parameter.name]["default"] = parameter.default
        else:
            required.append(parameter.name)
    schema = {"type": "object", "properties": properties, "required": required}
    return Tool(name, first, schema, function)


class Tools:
    """Tools by name.

    Attributes:
      timeout: seconds that a call may take. longest: characters of an observation; the rest is cut off, and said so.
    """

    def __init__(self, tools: Sequence[Tool | Callable[..., Any]], *, timeout: float = 20.0, longest: int = 4000):
        made = [one if isinstance(one, Tool) else tool(one) for one in tools]
        self._by_name = {one.name.lower(): one for one in made}
        if len(self._by_name) < len(made):
            raise ValueError(f"two tools have the same name, capitals aside: {sorted(one.name for one in made)}")
        if timeout <= 0 or longest < 1:
            raise ValueError(f"a timeout above 0 and at least 1 character are needed, given {timeout:g}, {longest}")
        self.timeout, self.longest = timeout, longest

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._by_name.values())

    @property
    def specifications(self) -> tuple[dict[str, Any], ...]:
        return tuple(one.specification for one in self)

    def get(self, name: str) -> Tool:
        """The tool of this name, capitals aside.

        Raises:
          ValueError: there is none; names the nearest.
        """
        if name.lower() not in self._by_name:
            known = sorted(one.name for one in self)
            raise ValueError(f"unknown tool {name!r}{meant(name, known)}; have {known}")
        return self._by_name[name.lower()]

    def call(self, name: str, arguments: str | Mapping[str, Any]) -> Observation:
        """Runs a tool; whatever goes wrong is told in the observation.

        arguments: a mapping or the JSON text of one; other text is the one argument of a tool that takes one text, or
          the arguments in their order, as JSON with commas between.
        """
        try:
            chosen = self.get(name)
            given = _read_arguments(chosen, arguments) if isinstance(arguments, str) else dict(arguments)
            checked = _checked(chosen, given)
        except ValueError as error:
            return Observation(f"Error: {error}", False)
        ok, result = self._run(chosen, checked)
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
        if len(text) > self.longest:
            text = f"{text[: self.longest]} ... (cut off after {self.longest} of {len(text)} characters)"
        return Observation(text, ok)

    def _run(self, chosen: Tool, arguments: Mapping[str, Any]) -> tuple[bool, Any]:
        outcome: list[tuple[bool, Any]] = []

        def work() -> None:
            try:
                outcome.append((True, chosen.function(**arguments)))
            except Exception as error:  # whatever a tool raises is told to the model
                outcome.append((False, f"Error: {chosen.name} failed: {type(error).__name__}: {error}"))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(self.timeout)
        return outcome[0] if outcome else (False, f"Error: {chosen.name} gave nothing within {self.timeout:g} seconds")


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    text = inspect.getdoc(function) or ""
    _, _, args = text.partition("Args:\n")
    told: dict[str, str] = {}
    for line in args.partition("\n\n")[0].splitlines():
        name, colon, rest = line.strip().partition(":")
        if colon and name.isidentifier():
            told[name] = rest.strip()
        elif told:  # a description that goes on
            told[list(told)[-1]] += f" {line.strip()}"
    return " ".join(text.partition("\n\n")[0].split()), told


def _schema(kind: Any, where: str) -> dict[str, Any]:
    origin, inner = get_origin(kind), get_args(kind)
    if kind in _TYPES:
        return {"type": _TYPES[kind]}
    if origin is Literal and all(isinstance(value, str) for value in inner):
        return {"type": "string", "enum": list(inner)}
    if origin is list:
        return {"type": "array", "items": _schema(inner[0], where)}
    if origin is dict and inner[0] is str:
        return {"type": "object", "additionalProperties": _schema(inner[1], where)}
    if origin in (Union, UnionType):
        options = [{"type": "null"} if one is NoneType else _schema(one, where) for one in inner]
        return {"anyOf": options}
    raise ValueError(
        f"{where}: cannot describe the type {kind}; have str, int, float, bool, list, dict[str, ...], "
        "Literal of texts and unions of them"
    )


def _read_arguments(chosen: Tool, text: str) -> dict[str, Any]:
    """Arguments from what stands in an action's brackets, or from the JSON of a call."""
    properties = chosen.parameters["properties"]
    try:
        value = json.loads(text)
        if isinstance(value, dict) and (not value or set(value) & set(properties) or len(properties) != 1):
            return value
    except ValueError:
        pass
    names = list(properties)
    if not text.strip() and not chosen.parameters["required"]:
        return {}
    if names and properties[names[0]].get("type") == "string" and len(chosen.parameters["required"]) <= 1:
        return {names[0]: text}
    try:
        values = json.loads(f"[{text}]")
    except ValueError:
        expected = ", ".join(f"{name}: {properties[name].get('type', 'any')}" for name in names)
        raise ValueError(f"{chosen.name} takes ({expected}) as JSON, given {text[:200]!r}") from None
    if len(values) > len(names):
        raise ValueError(f"{chosen.name} takes {len(names)} arguments {names}, given {len(values)}")
    return dict(zip(names, values, strict=False))


def _checked(chosen: Tool, given: Mapping[str, Any]) -> dict[str, Any]:
    properties = chosen.parameters["properties"]
    for name in given:
        if name not in properties:
            raise ValueError(
                f"{chosen.name} has no parameter {name!r}{meant(name, properties)}; has {list(properties)}"
            )
    if missing := [name for name in chosen.parameters["required"] if name not in given]:
        raise ValueError(f"{chosen.name} needs {missing}, given {sorted(given)}")
    return {name: _fitted(value, properties[name], f"{chosen.name}, {name}") for name, value in given.items()}


def _fitted(value: Any, schema: Mapping[str, Any], where: str) -> Any:
    """The value where it is what the schema says: 3.0 is an integer, 3 a number, true neither."""
    if "anyOf" in schema:
        for option in schema["anyOf"]:
            try:
                return _fitted(value, option, where)
            except ValueError:
                continue
        raise ValueError(f"{where}: expected {' or '.join(o['type'] for o in schema['anyOf'])}, given {value!r}")
    kind = schema["type"]
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    fits = {
        "string": isinstance(value, str),
        "integer": number and value == int(value),
        "number": number,
        "boolean": isinstance(value, bool),
        "null": value is None,
        "array": isinstance(value, list),
        "object": isinstance(value, Mapping),
    }[kind]
    if not fits:
        raise ValueError(f"{where}: expected {kind}, given {value!r}")
    if value not in schema.get("enum", [value]):
        raise ValueError(f"{where}: {value!r} is none of {schema['enum']}{meant(value, schema['enum'])}")
    if kind == "array":
        return [_fitted(one, schema["items"], where) for one in value]
    if kind == "object":
        return {key: _fitted(one, schema["additionalProperties"], where) for key, one in value.items()}
    return int(value) if kind == "integer" else float(value) if kind == "number" else value
