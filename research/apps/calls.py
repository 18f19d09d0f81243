"""Tool calls as text and as OpenAI writes them, and chats with calls in the forms that data and templates have.

A call is {"id": ..., "type": "function", "function": {"name": ..., "arguments": JSON as text}}.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .protocol import Message

_BLOCK = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)


def call(name: str, arguments: str, id: str) -> dict[str, Any]:
    """One call."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def read_calls(text: str) -> tuple[str, tuple[dict[str, Any], ...]]:
    """(what is said, the calls) of a text: <tool_call>{"name", "arguments"}</tool_call>, or such JSON and nothing else.

    A block that holds no such JSON is a call without a name, whose arguments are what it holds, so that its writer can
    be told.
    """
    blocks = _BLOCK.findall(text)
    if blocks:
        found = [(_parse(block) or [("", block)]) for block in blocks]
        said = _BLOCK.sub("", text).strip()
    else:
        whole = _parse(text)
        found, said = ([whole], "") if whole else ([], text)
    pairs = [pair for some in found for pair in some]
    return said, tuple(call(name, arguments, f"call_{i}") for i, (name, arguments) in enumerate(pairs))


def _parse(text: str) -> list[tuple[str, str]]:
    """(name, arguments) of each call in a JSON object or list; none where it is something else."""
    try:
        value = json.loads(text)
    except ValueError:
        return []
    pairs = []
    for one in value if isinstance(value, list) else [value]:
        given = one.get("arguments", one.get("parameters")) if isinstance(one, Mapping) else None
        if given is None or not isinstance(one.get("name"), str):
            return []
        pairs.append((one["name"], given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)))
    return pairs


def for_template(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The same chat as chat templates read it: arguments as values and not as text, content never None."""
    plain = []
    for message in messages:
        calls = [
            {**one, "function": {**one["function"], "arguments": _value(one["function"]["arguments"])}}
            for one in message.get("tool_calls") or ()
        ]
        extra = {"tool_calls": calls} if calls else {}
        plain.append({**message, "content": message.get("content") or "", **extra})
    return plain


def _value(arguments: Any) -> Any:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def from_sharegpt(row: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(messages, tools) of a row {"conversations": [{"from", "value"}], "tools": JSON}, with OpenAI's names.

    "function_call" becomes an assistant's message with a call, "observation" the tool's answer to it.

    Raises:
      ValueError: another speaker, an observation that answers no call, or a call that cannot be read.
    """
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    messages: list[dict[str, Any]] = []
    open_calls: list[str] = []
    for i, turn in enumerate(row["conversations"]):
        speaker, value = turn["from"], turn["value"]
        if speaker == "function_call":
            pairs = _parse(value)
            if not pairs:
                raise ValueError(f"turn {i}: a call is JSON with name and arguments, given {value[:80]!r}")
            calls = [call(name, arguments, f"call_{i}_{k}") for k, (name, arguments) in enumerate(pairs)]
            open_calls = [one["id"] for one in calls]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        elif speaker == "observation":
            if not open_calls:
                raise ValueError(f"turn {i}: this observation answers no call")
            messages.append({"role": "tool", "tool_call_id": open_calls.pop(0), "content": value})
        elif speaker in roles:
            messages.append({"role": roles[speaker], "content": value})
        else:
            raise ValueError(f"turn {i}: unknown speaker {speaker!r}; have {[*roles, 'function_call', 'observation']}")
    tools = [{"type": "function", "function": tool} for tool in json.loads(row.get("tools") or "[]")]
    return messages, tools


def to_sharegpt(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The row of a chat; inverse of `from_sharegpt`."""
    names = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}
    turns = []
    for message in messages:
        calls = message.get("tool_calls") or ()
        if message.get("content") is not None:
            turns.append({"from": names[message["role"]], "value": message["content"]})
        if calls:
            named = [
                {"name": one["function"]["name"], "arguments": _value(one["function"]["arguments"])} for one in calls
            ]
            value = json.dumps(named[0] if len(named) == 1 else named, ensure_ascii=False)
            turns.append({"from": "function_call", "value": value})
    listed = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    return {"conversations": turns, "tools": listed}
