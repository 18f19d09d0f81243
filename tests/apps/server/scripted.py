"""An engine without a model: replies are looked up, a token is a character; slots fill and empty as in the real one."""

import itertools
import random
import threading
import time
from collections import deque

import numpy as np

from research.apps.serving import Full, Piece, Told, UnknownModel


class Scripted:
    """`research.apps.serving.Engine`; `asked` are the requests that it took.

    replies: prompt -> text; of other prompts the text is drawn with the seed (greedily: always the same).
    pause: seconds of a step. faults: prompts whose second step fails.
    """

    models = ("scripted", "team/adapter")

    def __init__(self, replies=None, *, slots=4, queue=8, window=2000, pause=0.0, faults=()):
        self.replies, self.slots, self.queue, self.window = replies or {}, slots, queue, window
        self.pause, self.faults = pause, faults
        self.asked, self.waiting, self.running, self.cancelled = [], deque(), [], set()
        self.numbers, self.ended, self.lock, self.closing = itertools.count(1), 0, threading.Lock(), False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def submit(self, ask, on_piece):
        if ask.model not in self.models:
            raise UnknownModel(f"unknown model {ask.model!r}")
        prompt = self.text(ask.prompt)
        room = self.window - len(prompt)
        budget = room if ask.max_new_tokens is None else ask.max_new_tokens
        if budget > room or room < 1:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens and {ask.max_new_tokens} new ones; window {self.window}"
            )
        with self.lock:
            if self.closing or len(self.waiting) >= self.queue:
                raise Full(f"{len(self.waiting)} requests are waiting already")
            number = next(self.numbers)
            self.asked.append(ask)
            self.waiting.append((number, self._steps(ask, prompt, budget), on_piece))
            return number

    def cancel(self, number):
        with self.lock:
            self.cancelled.add(number)

    def count(self, prompt, tools=()):
        return len(self.text(prompt))

    def embed(self, texts):
        if "fault" in texts:
            raise ValueError("this text has no embedding")
        rows = np.asarray([[len(text) + 1, text.count("a"), 1] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def figures(self):
        with self.lock:
            return {
                "queued": len(self.waiting),
                "running": len(self.running),
                "slots": self.slots,
                "requests": self.ended,
            }

    def close(self, grace=30.0):
        with self.lock:
            self.closing = True
        self.thread.join(grace)

    @staticmethod
    def text(prompt):
        if isinstance(prompt, str):
            return prompt
        if prompt and isinstance(prompt[0], int):
            if max(prompt) > 127:
                raise ValueError(f"token ids lie in 0..127, given {max(prompt)}")
            return "".join(map(chr, prompt))
        return "\n".join(message["content"] for message in prompt)

    def reply(self, ask, prompt):
        draw = random.Random(ask.seed if ask.temperature else 0)
        return self.replies.get(prompt, "".join(draw.choices("abcde fgh é😀\n", k=30)))

    def _steps(self, ask, prompt, budget):
        """The pieces of an answer, three tokens each."""
        text, finish = self.reply(ask, prompt), "stop"
        ends = [place for place in map(text.find, ask.stop) if place >= 0]
        text = text[: min(ends, default=None)]
        if len(text) > budget:
            text, finish = text[:budget], "length"
        if ask.echo:
            yield Piece(prompt, self._told(prompt, ask, first=True), None, len(prompt), 0)
        for start in range(0, len(text), 3):
            if start and prompt in self.faults:
                yield Piece("it broke", (), "error", len(prompt), start)
            some = text[start : start + 3]
            yield Piece(some, self._told(some, ask), None, len(prompt), start + len(some))
        yield Piece("", (), finish, len(prompt), len(text))

    @staticmethod
    def _told(text, ask, first=False):
        if ask.logprobs is None:
            return ()
        others = lambda c: tuple((ord(c) + k, chr(ord(c) + k), -0.5 - k) for k in range(ask.logprobs))  # noqa: E731
        told = [Told(ord(c), c, -0.5, others(c)) for c in text]
        return tuple([Told(t.id, t.text, None) if first and i == 0 else t for i, t in enumerate(told)])

    def _run(self):
        while True:
            with self.lock:
                while self.waiting and len(self.running) < self.slots:
                    self.running.append(self.waiting.popleft())
                if self.closing and not self.running:
                    return
                now = list(self.running)
            for one in now:
                number, steps, on_piece = one
                piece = Piece("", (), "cancelled") if number in self.cancelled else next(steps)
                on_piece(piece)
                if piece.finish is not None:
                    with self.lock:
                        self.running.remove(one)
                        self.ended += 1
            time.sleep(self.pause or 0.0005)
