"""/v1/completions: texts that are continued."""

import secrets
from collections.abc import Sequence
from typing import Any

from research.apps.serving import Ask, Piece, Told

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def sampling(body: dict[str, Any], place: int) -> dict[str, Any]:
    """The part of an `Ask` that all kinds of requests share, for the answer of this number to a prompt.

    The first answer has the seed itself and every further one the next; without a seed they are drawn.
    """
    stop = body.get("stop", ())
    return {
        "model": body["model"],
        "stop": (stop,) if isinstance(stop, str) else tuple(stop),
        "seed": (body["seed"] + place) % 2**31 if "seed" in body else secrets.randbits(31),
        **{name: body[name] for name in SAMPLING if name in body},
    }


def prompts(body: dict[str, Any]) -> list[str | list[int]]:
    """The prompts of a request, which has one or a list of them."""
    prompt = body["prompt"]
    return [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt


class Completions:
    """What is asked, and how its answers are written down."""

    kind, prefix, param = "text_completion", "cmpl", "prompt"
    piece_kind = kind

    def __init__(self, body: dict[str, Any]) -> None:
        self.n = body.get("n", 1)
        told = prompts(body)
        self.asks = [
            Ask(
                prompt,
                max_new_tokens=int(body.get("max_tokens", 16)),
                logprobs=body.get("logprobs"),
                echo=body.get("echo", False),
                **sampling(body, place),
            )
            for prompt in told
            for place in range(self.n)
        ]
        self.written = [0] * len(self.asks)  # characters that the pieces so far have

    def begin(self) -> list[dict[str, Any]]:
        """Choices of a stream before anything is written."""
        return []

    def piece(self, place: int, piece: Piece) -> list[dict[str, Any]]:
        """Choices of a stream for one piece."""
        return [self.choice(place, piece)] if piece.text or piece.tokens or piece.finish else []

    def choice(self, place: int, piece: Piece) -> dict[str, Any]:
        """The choice of a whole answer."""
        logprobs = None
        if self.asks[place].logprobs is not None:
            logprobs, self.written[place] = _logprobs(piece.tokens, self.written[place])
        return {"text": piece.text, "index": place, "logprobs": logprobs, "finish_reason": piece.finish}


def _logprobs(tokens: Sequence[Told], start: int) -> tuple[dict[str, Any], int]:
    offsets = []
    for token in tokens:
        offsets.append(start)
        start += len(token.text)
    told = {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_likeliest(token) for token in tokens],
        "text_offset": offsets,
    }
    return told, start


def _likeliest(token: Told) -> dict[str, float] | None:
    """The likeliest texts, and the token's own where it is not among them; of equal texts the likelier counts."""
    if token.logprob is None:
        return None
    found = {token.text: token.logprob}
    for _, text, logprob in token.alternatives:
        found[text] = max(logprob, found.get(text, logprob))
    return found
