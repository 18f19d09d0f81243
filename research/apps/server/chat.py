"""/v1/chat/completions: chats that are answered, with calls of tools."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from research.apps.calls import for_template, read_calls
from research.apps.serving import Ask, Piece, Told

from .completions import sampling
from .limits import Refusal

TAG = "<tool_call>"


class Chats:
    """What is asked, and how its answers are written down."""

    kind, prefix, param = "chat.completion", "chatcmpl", "messages"
    piece_kind = "chat.completion.chunk"

    def __init__(self, body: dict[str, Any]) -> None:
        self.n = body.get("n", 1)
        limits = {int(body[name]) for name in ("max_tokens", "max_completion_tokens") if name in body}
        if len(limits) > 1:
            raise Refusal(400, "max_tokens and max_completion_tokens differ; give one", param="max_tokens")
        if "top_logprobs" in body and not body.get("logprobs"):
            raise Refusal(400, "top_logprobs needs logprobs=true", param="top_logprobs")
        if "tool_choice" in body and not body.get("tools"):
            raise Refusal(400, "tool_choice needs tools", param="tool_choice")
        tools = body.get("tools", []) if body.get("tool_choice") != "none" else []
        messages = for_template([_message(message, i) for i, message in enumerate(body["messages"])])
        self.asks = [
            Ask(
                messages,
                tools=tools,
                max_new_tokens=min(limits, default=None),
                logprobs=int(body.get("top_logprobs", 0)) if body.get("logprobs") else None,
                **sampling(body, place),
            )
            for place in range(self.n)
        ]
        self.replies = [Reply(bool(tools)) for _ in self.asks]

    def begin(self) -> list[dict[str, Any]]:
        """Choices of a stream before anything is written."""
        return [self._chosen(place, {"delta": {"role": "assistant", "content": ""}}) for place in range(self.n)]

    def piece(self, place: int, piece: Piece) -> list[dict[str, Any]]:
        """Choices of a stream for one piece."""
        text, calls, finish = self.replies[place].read(piece)
        choices = []
        if text or piece.tokens:
            choices.append(self._chosen(place, {"delta": {"content": text}}, piece.tokens))
        if calls:
            listed = [{"index": i, **call} for i, call in enumerate(calls)]
            choices.append(self._chosen(place, {"delta": {"tool_calls": listed}}))
        if finish:
            choices.append(self._chosen(place, {"delta": {}}, finish=finish))
        return choices

    def choice(self, place: int, piece: Piece) -> dict[str, Any]:
        """The choice of a whole answer."""
        text, calls, finish = self.replies[place].read(piece)
        message: dict[str, Any] = {"role": "assistant", "content": text or None if calls else text, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        return self._chosen(place, {"message": message}, piece.tokens, finish)

    def _chosen(
        self, place: int, said: dict[str, Any], tokens: Sequence[Told] = (), finish: str | None = None
    ) -> dict[str, Any]:
        told = None
        if self.asks[place].logprobs is not None and (tokens or "message" in said):
            told = {"content": [_told(token) for token in tokens], "refusal": None}
        return {"index": place, **said, "logprobs": told, "finish_reason": finish}


class Reply:
    """One answer as it grows: what is certain to be said, and at its end the calls."""

    def __init__(self, tools: bool) -> None:
        self.tools, self.text, self.said = tools, "", 0

    def read(self, piece: Piece) -> tuple[str, list[dict[str, Any]], str | None]:
        """(what is newly said, the calls, the reason of the end) after one more piece.

        What may begin a call is held back until the end; what turns out to be none is said then.
        """
        self.text += piece.text
        calls: list[dict[str, Any]] = []
        finish = piece.finish
        if not self.tools:
            certain = self.text
        elif finish is None:
            certain = self.text[: _certain(self.text)]
        else:
            certain = self.text
            _, found = read_calls(self.text)
            if found and all(call["function"]["name"] for call in found):
                calls = [{**call, "id": f"call_{secrets.token_hex(12)}"} for call in found]
                certain = self.text[: _certain(self.text)]
                finish = "tool_calls" if finish == "stop" else finish
        new, self.said = certain[self.said :], max(len(certain), self.said)
        return new, calls, finish


def _certain(text: str) -> int:
    """How many characters belong to no call, whatever follows."""
    if text.lstrip().startswith(("{", "[")):
        return 0
    place = text.find(TAG)
    if place < 0:
        begun = next((k for k in range(len(TAG) - 1, 0, -1) if text.endswith(TAG[:k])), 0)
        place = len(text) - begun
    return len(text[:place].rstrip())


def _message(message: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A message as chat templates know it: one text for content, no `developer`, nothing that is null."""
    given = {name: value for name, value in message.items() if value is not None}
    where = f"messages[{number}]"
    if given["role"] == "developer":
        given["role"] = "system"
    if given["role"] == "tool" and "tool_call_id" not in given:
        raise Refusal(400, f"{where}: the answer of a tool needs tool_call_id", param=f"{where}.tool_call_id")
    if "tool_calls" in given and given["role"] != "assistant":
        raise Refusal(400, f"{where}: only the assistant calls tools", param=f"{where}.tool_calls")
    content = given.get("content")
    if content is None and not given.get("tool_calls"):
        raise Refusal(400, f"{where} has no content", param=f"{where}.content")
    if isinstance(content, list):
        given["content"] = "".join(part["text"] for part in content)
    return given


def _told(token: Told) -> dict[str, Any]:
    likeliest = [_one(text, logprob) for _, text, logprob in token.alternatives]
    return {**_one(token.text, token.logprob), "top_logprobs": likeliest}


def _one(text: str, logprob: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
