"""Continuous batching: requests come and go while a fixed number of slots is decoded, one thread around few programs.

A prompt is read in chunks between the steps of the others, into a cache of its own; then it takes a free slot. Its last
token is the first one that a step feeds, so the first new token comes like all that follow.

S window · C chunk length
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.apps.serving import Ask, Full, Message, Piece, UnknownModel
from research.core import compilation
from research.core.types import Params
from research.decoding import slots as compiled
from research.decoding.asked import Asked, Words
from research.decoding.generate import prepare
from research.decoding.prompts import bucket, check_rows, context, has_encoder, pad_right
from research.decoding.reading import read_prompt
from research.decoding.sample import Sampling
from research.decoding.text import check_stop_strings
from research.weights import pool
from research.weights.prefix import prefix_length
from research.weights.prompts import nearest, virtual_ids
from research.weights.wrapper import over_wrappers

log = logging.getLogger(__name__)
WINDOW = 2048  # where a model's positions have no end
FRONT = 128  # the least part of the window that a step reads


class Engine:
    """Decodes many requests at once; see `research.apps.serving.Engine` for what callers use.

    With the same seed a request gets the text of `generate(..., key=0, seeds=[seed])`, whatever else runs.

    Args:
      slots: rows that are decoded at a time. window: tokens of prompt and answer; None: the model's, at most 2048.
      chunk: prompt tokens that are read at a time. queue: requests that may wait.
      adapters: {name: the same model with LoRA adapters on the same weights}; each request chooses by name.
      embedder: texts -> unit rows. stop_tokens: None: the tokenizer's end token. alternatives: the most that are told.
      warm: compile everything now, so that the first request does not wait.

    Raises:
      ValueError: a model that writes nothing, adapters that do not go together, numbers below 1.
    """

    def __init__(
        self,
        model: Any,
        params: Params,
        tokenizer: Any,
        *,
        name: str = "model",
        slots: int = 8,
        window: int | None = None,
        chunk: int = 64,
        queue: int = 64,
        adapters: Mapping[str, Params] | None = None,
        embedder: Callable[[Sequence[str]], np.ndarray] | None = None,
        stop_tokens: Sequence[int] | None = None,
        alternatives: int = 20,
        warm: bool = True,
    ):
        if model.config.kind == "encoder" or model.config.head != "lm":
            raise ValueError(f"a {model.config.kind} with head {model.config.head!r} writes no text")
        low = {"slots": slots, "chunk": chunk, "queue": queue, "window": 2 if window is None else window - 1}
        if bad := [n for n, value in low.items() if value < 1]:
            raise ValueError(f"slots, chunk and queue are at least 1, the window at least 2; given {bad[0]} too small")
        self.model, self.tokenizer, self.embedder = model, tokenizer, embedder
        self.models = (name, *(adapters or {}))
        self._params = jax.block_until_ready(prepare(model, _pooled(params, adapters or {})))
        self._virtual = virtual_ids(self._params)
        limit = context(model)
        self._prefix = prefix_length(self._params)
        room = WINDOW if limit is None else limit - self._prefix
        self.window = min(window or WINDOW, room)
        # Doubled until the window: a step reads at most twice what its longest row holds.
        sizes = [FRONT << i for i in range(self.window.bit_length()) if FRONT << i < self.window]
        self._fronts = [*sizes, self.window]
        self._slots, self._chunk, self._queue_size = slots, min(chunk, self.window), queue
        self._alternatives = min(alternatives, model.config.vocab_size)
        self._spoken = min(tokenizer.vocab_size, model.config.vocab_size)
        end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        self._stops = frozenset(end if stop_tokens is None else stop_tokens)
        self._words = Words(tokenizer)
        self._running: list[Asked | None] = [None] * slots
        self._reading: Asked | None = None
        self._waiting: deque[Asked] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._number = 0
        self._figures = dict.fromkeys(("requests", "prompt_tokens", "new_tokens", "steps", "chunks", "failures"), 0.0)
        self._state = self._blank()
        if warm:
            self._warm()
        self._compiled = compilation.programs()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # What callers use, from any thread.

    def submit(self, ask: Ask, on_piece: Callable[[Piece], None]) -> int:
        """See `research.apps.serving.Engine.submit`."""
        if ask.model not in self.models:
            raise UnknownModel(f"unknown model {ask.model!r}; have {list(self.models)}")
        read = self._ids(ask.prompt, ask.tools)
        ids, source = ([self.model.config.decoder_start_id], read) if has_encoder(self.model) else (read, None)
        budget = self._check(ask, ids, source)
        with self._changed:
            if self._closing:
                raise Full("the server is stopping")
            if len(self._waiting) >= self._queue_size:
                raise Full(f"{len(self._waiting)} requests are waiting already")
            self._number += 1
            one = Asked(self._number, ask, ids, source, budget, self.tokenizer, self._words, on_piece)
            one.row = compiled.wish(ask, self.models.index(ask.model))
            self._waiting.append(one)
            self._figures["requests"] += 1
            self._figures["prompt_tokens"] += one.prompt_tokens
            self._changed.notify()
            return one.number

    def cancel(self, number: int) -> None:
        """See `research.apps.serving.Engine.cancel`."""
        with self._changed:
            for one in (*self._waiting, self._reading, *self._running):
                if one is not None and one.number == number:
                    one.cancelled = True
            self._changed.notify()

    def count(self, prompt: str | Sequence[int] | Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> int:
        """The tokens of a prompt."""
        return len(self._ids(prompt, tools))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[N, width] float32 unit rows; raises ValueError where no embedding model is served."""
        if self.embedder is None:
            raise ValueError("no embedding model is served here")
        return self.embedder(texts)

    def attention(self, text: str, model: str) -> tuple[list[str], np.ndarray]:
        """The text's tokens and attention maps [layers, heads, T, T] of a decoder."""
        if has_encoder(self.model):
            raise ValueError("attention maps are shown of decoders")
        if model not in self.models:
            raise UnknownModel(f"unknown model {model!r}; have {list(self.models)}")
        ids = self._ids(text, ())
        check_rows([ids], self.model.config.vocab_size + len(self._virtual), self.window)
        tokens, segments = pad_right([ids], min(bucket(len(ids)), self.window))
        adapter = jnp.full((1,), self.models.index(model), jnp.int32)
        maps = _attention(self.model, self._params, adapter, {"tokens": tokens, "segment_ids": segments})
        return [self._words.of(i) for i in ids], np.asarray(maps)[:, 0, :, : len(ids), : len(ids)]

    def nearest(self, model: str, k: int = 5) -> list[list[tuple[str, float]]]:
        """For each virtual token its k nearest tokens and their cosines; empty without a soft prompt."""
        if not self._virtual:
            return []
        ids, cosines = nearest(self._params, k)
        return [
            [(self._words.of(int(i)), float(c)) for i, c in zip(row, near, strict=True)]
            for row, near in zip(ids, cosines, strict=True)
        ]

    def figures(self) -> dict[str, float]:
        """Counters since the start and what goes on now; `compilations` stays 0 once the engine is warm."""
        with self._changed:
            running = sum(one is not None for one in self._running)
            queued = len(self._waiting) + (self._reading is not None)
            now = {"queued": queued, "running": running, "slots": self._slots}
            return {**self._figures, **now, "compilations": compilation.programs() - self._compiled}

    def close(self, grace: float = 30.0) -> None:
        """Takes nothing new, waits for what runs, cancels what has not ended by then."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            self._changed.wait_for(lambda: self._idle, timeout=grace)
            for one in (*self._waiting, self._reading, *self._running):
                if one is not None:
                    one.cancelled = True
            self._changed.notify()
        self._thread.join(timeout=grace + 30)

    def _ids(self, prompt: Any, tools: Sequence[Mapping[str, Any]]) -> list[int]:
        return [*self._virtual, *read_prompt(self.model, self.tokenizer, prompt, tools)]

    # The engine's thread.

    @property
    def _idle(self) -> bool:
        return not self._waiting and self._reading is None and not any(self._running)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._idle:
                    self._changed.notify_all()
                    if self._closing:
                        return
                    self._changed.wait_for(lambda: not self._idle or self._closing)
            try:
                self._drop()
                self._admit()
                if any(self._running):
                    self._step()
            except Exception as error:  # a fault of one step must not silence the server
                log.exception("a step failed")
                self._fail(error)

    def _drop(self) -> None:
        """Ends what was cancelled, wherever it is."""
        with self._changed:
            gone = [one for one in self._waiting if one.cancelled]
            self._waiting = deque(one for one in self._waiting if not one.cancelled)
            if self._reading is not None and self._reading.cancelled:
                gone, self._reading = [*gone, self._reading], None
            for slot, one in enumerate(self._running):
                if one is not None and one.cancelled:
                    gone.append(one)
                    self._running[slot] = None
        for one in gone:
            _tell(one, "", "cancelled")

    def _admit(self) -> None:
        """Reads a chunk, or as many as it takes while more slots are free than taken."""
        while None in self._running:
            with self._changed:
                if self._reading is None:
                    if not self._waiting:
                        return
                    self._reading = self._waiting.popleft()
            one = self._reading
            if one.cache is None:
                one.cache = self._row(one)
            if one.read < len(one.ids) - 1:
                self._read(one)
            if one.read >= len(one.ids) - 1:
                self._seat(one)
            if 2 * sum(running is not None for running in self._running) >= self._slots:
                return

    def _read(self, one: Asked) -> None:
        first, C = one.read, self._chunk
        some = one.ids[first : min(first + C, len(one.ids) - 1)]
        tokens, targets = np.full((1, C), -1, np.int32), np.zeros((1, C), np.int32)
        tokens[0, : len(some)] = some
        targets[0, : len(some)] = one.ids[first + 1 : first + 1 + len(some)]
        args = (one.cache, tokens, np.int32(first), targets, one.row)
        one.cache, written = compiled.read(self.model, self._alternatives, self._params, *args)
        self._figures["chunks"] += 1
        one.read = first + len(some)
        if one.ask.echo and one.ask.logprobs is not None:
            one.hear(first, jax.tree.map(lambda x: x[: len(some)], jax.device_get(written)))

    def _seat(self, one: Asked) -> None:
        """What has been read takes a slot, unless nothing is to be written."""
        if one.ask.echo:
            one.echo(len(self._virtual) if one.source is None else 0)
        if not one.budget:
            if not one.ask.echo:
                one.tell("", (), "length")
            self._reading = None
            return
        slot = self._running.index(None)
        history = np.zeros((1, self.window), np.int32)
        history[0, : len(one.ids)] = one.ids
        length = np.full((1,), len(one.ids), np.int32)
        self._state = compiled.seat(self._state, np.int32(slot), one.cache, history, length, one.row)
        one.cache = None
        self._running[slot], self._reading = one, None

    def _step(self) -> None:
        live = np.asarray([one is not None for one in self._running])
        longest = max(one.held for one in self._running if one is not None)
        front = next(size for size in self._fronts if size >= longest)
        written = self._decode(front, live)
        self._figures["steps"] += 1
        self._figures["new_tokens"] += int(live.sum())
        for slot, one in enumerate(self._running):
            if one is None:
                continue
            token, told = int(written.token[slot]), None
            if one.ask.logprobs is not None:
                more = written.alternatives[slot], written.alternative_logprobs[slot]
                told = one.told(token, float(written.logprob[slot]), *more)
            try:
                ended = one.take(token, self._stops, told)
            except Exception:  # its listener has gone
                ended = True
            if ended:
                self._running[slot] = None

    def _decode(self, front: int, live: np.ndarray) -> Any:
        """A step's `Written` as numpy arrays."""
        options = self.model, self._alternatives, self._spoken, self._prefix + front
        self._state, written = compiled.step(*options, self._params, self._state, live)
        return jax.device_get(written)

    def _fail(self, error: Exception) -> None:
        """Ends everything that was on its way, and starts with empty slots: the old ones may be lost."""
        with self._changed:
            lost = [one for one in (self._reading, *self._running) if one is not None]
            self._reading, self._running = None, [None] * self._slots
            self._figures["failures"] += 1
        for one in lost:
            _tell(one, f"{type(error).__name__}: {error}", "error")
        self._state = self._blank()

    # Arrays.

    def _check(self, ask: Ask, ids: list[int], source: list[int] | None) -> int:
        """The most new tokens; raises ValueError where the request cannot be served."""
        words = self.model.config.vocab_size + len(self._virtual)
        check_rows([ids if source is None else source], words, self.window)
        check_stop_strings(ask.stop, self.tokenizer)
        if ask.logprobs is not None and not 0 <= ask.logprobs <= self._alternatives:
            raise ValueError(f"logprobs must lie in 0..{self._alternatives}, got {ask.logprobs}")
        Sampling(temperature=ask.temperature, repetition_penalty=ask.repetition_penalty)
        # Of a greedy request the filters are checked too.
        Sampling(temperature=1.0, top_p=ask.top_p, top_k=ask.top_k, min_p=ask.min_p)
        room = self.window - len(ids)
        wanted = room if ask.max_new_tokens is None else ask.max_new_tokens
        if wanted < 0 or wanted > room or (wanted == 0 and ask.max_new_tokens is None):
            raise ValueError(
                f"the prompt has {len(ids)} tokens and {ask.max_new_tokens} new ones are asked for; the window of "
                f"{self.window} has room for {room}"
            )
        return wanted

    def _row(self, one: Asked) -> Any:
        """An empty cache of one row; an encoder's input is read into it."""
        batch = {"tokens": np.zeros((1, 1), np.int32)}
        if one.source is not None:
            inputs, segments = pad_right([one.source], min(bucket(len(one.source)), self.window))
            batch |= {"inputs": inputs, "input_segment_ids": segments}
        return compiled.start(self.model, self.window, self._params, one.row.adapter, batch)

    def _blank(self) -> compiled.Slots:
        return compiled.blank(self.model, self.window, self._params, self._slots)

    def _warm(self) -> None:
        """Compiles every program with a request that nobody hears."""
        sizes = {bucket(n) for n in range(1, self.window + 1)} if has_encoder(self.model) else {min(2, self.window)}
        for size in sorted(min(size, self.window) for size in sizes):
            ids = [self.model.config.decoder_start_id, 0] if has_encoder(self.model) else [0] * size
            source = [0] * size if has_encoder(self.model) else None
            ask = Ask([0], self.models[0], logprobs=0, echo=True)
            one = Asked(0, ask, ids, source, 1, self.tokenizer, self._words, lambda piece: None)
            one.row = compiled.wish(ask, self.models.index(ask.model))
            one.cache = self._row(one)
            self._read(one)
            self._seat(one)
            self._step()
        for front in self._fronts:
            self._decode(front, np.zeros((self._slots,), bool))


def _tell(one: Asked, text: str, finish: str) -> None:
    """The last word to a listener that may have gone."""
    try:
        one.tell(text, (), finish)
    except Exception:
        log.info("request %d ended without a listener", one.number)


def _pooled(params: Params, adapters: Mapping[str, Params]) -> Params:
    """The base and its adapters as one tree: id 0 is the base, through an adapter that adds nothing."""
    if not adapters:
        return params
    first = next(iter(adapters.values()))
    nothing = over_wrappers(lambda node: replace(node, b=jnp.zeros_like(node.b)) if hasattr(node, "b") else node, first)
    return pool([nothing, *adapters.values()])


@partial(jax.jit, static_argnames=("model",))
def _attention(model: Any, params: Params, adapter: jax.Array, batch: Mapping[str, Any]) -> jax.Array:
    return model.apply(compiled.routed(params, adapter), batch, attentions=True).attentions
