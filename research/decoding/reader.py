"""The host's side of a call: follows the rows' text, ends rows at stop strings, calls back, sums up.

B batch · N most new tokens
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core.types import Array
from research.decoding.loop import Plan, State
from research.decoding.request import Request
from research.decoding.result import REASONS, Generation, Piece
from research.decoding.text import TextStream, check_stop_strings

_RECORDS = ("logprobs", "processed_logprobs", "alternatives", "alternative_logprobs")


class Reader:
    """Follows the rows of one call from the host; `streams` is None without a tokenizer."""

    def __init__(
        self,
        request: Request,
        tokenizer: Any,
        stop_strings: Sequence[str] = (),
        on_piece: Callable[[Piece], None] | None = None,
    ):
        check_stop_strings(stop_strings, tokenizer)
        rows = len(request.rows)
        self.request, self.on_piece, self.stop_strings = request, on_piece, stop_strings
        self.start = np.asarray([len(row) for row in request.rows])
        self.used = np.zeros(rows, np.int64)  # new tokens that count
        self.ended = np.zeros(rows, bool)
        self.streams: list[TextStream] | None = None
        if tokenizer is not None:
            self.streams = [TextStream(tokenizer, row, stop_strings) for row in request.leads]

    def stride(self, asked: int | None) -> int | None:
        """How many steps to run between looks; None where nobody waits for text."""
        if asked is not None and asked < 1:
            raise ValueError(f"stride must be at least 1, got {asked}")
        if self.on_piece is not None:
            return asked or 1
        return (asked or 16) if self.stop_strings else None

    def look(self, state: State) -> tuple[State, bool]:
        """Reads what is new and ends rows that completed a stop string; also says whether any row still runs."""
        count, done, stopped, history, logprobs = jax.device_get(
            (state.count, state.done, state.stopped, state.history, state.logprobs if self.on_piece else None)
        )
        for i in map(int, np.flatnonzero(~self.ended)):
            first = self.used[i]
            new = history[i, self.start[i] + first : self.start[i] + count[i]].tolist()
            new, text, self.ended[i] = self._read(i, new, bool(done[i]), bool(stopped[i]))
            self.used[i] += len(new)
            if self.on_piece is not None and (new or self.ended[i]):
                scores = None if logprobs is None else logprobs[i, first : self.used[i]].tolist()
                self.on_piece(Piece(i, new, scores, text, bool(self.ended[i])))
        if np.any(self.ended & ~done):
            state = replace(state, done=jnp.asarray(done | self.ended))
        return state, not self.ended.all()

    def follow(self, state: State, advance: Callable[[State, Array], State], stride: int | None) -> State:
        """Runs `advance(state, limit)` until every row has ended, looking every `stride` steps (None: never)."""
        if stride is None:
            return advance(state, jnp.int32(np.iinfo(np.int32).max))
        state, running = self.look(state)
        while running:
            state, running = self.look(advance(state, state.step + stride))
        return state

    def _read(self, row: int, new: list[int], done: bool, stopped: bool) -> tuple[list[int], str, bool]:
        """One row's new tokens that count, its new text, and whether it has ended."""
        if self.streams is None:
            return new, "", done
        stream = self.streams[row]
        used = stream.push(new[:-1] if stopped else new)
        ended = done or stream.stopped
        return (new[:used] if stream.stopped else new), stream.read(final=ended), ended

    def result(self, state: State, plan: Plan, pad: int, **extra: Any) -> Generation:
        """The `Generation` of a finished state."""
        values, count, stopped, history = jax.device_get(
            (
                {name: getattr(state, name) for name in (*_RECORDS, "near_ties")},
                state.count,
                state.stopped,
                state.history,
            )
        )
        rows, width = len(self.request.rows), int(self.request.budget.max())
        followed = bool(self.ended.all())  # `look` has seen the end of every row
        lengths = self.used if followed else count
        by_string = np.asarray([followed and stream.stopped for stream in self.streams or []] or [False] * rows)
        tokens = np.full((rows, width), pad, np.int32)
        for i in range(rows):
            tokens[i, : lengths[i]] = history[i, self.start[i] : self.start[i] + lengths[i]]
            if self.streams is not None and not followed:
                self.streams[i].push(tokens[i, : lengths[i] - bool(stopped[i])].tolist())
                self.streams[i].read(final=True)
        inside = np.arange(plan.room) < lengths[:, None]
        for name in _RECORDS:
            if values[name] is not None:
                keep = inside if values[name].ndim == 2 else inside[..., None]
                values[name] = np.where(keep, values[name], 0)[:, :width]
        return Generation(
            tokens=tokens,
            lengths=lengths.astype(np.int32),
            reasons=[REASONS[3 if by_string[i] else 2 if stopped[i] else 1] for i in range(rows)],
            prompts=self.request.prompts,
            texts=None if self.streams is None else [stream.text for stream in self.streams],
            **values,
            **extra,
        )
