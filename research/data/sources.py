"""Batches as a pure function of (seed, step): rows -> an endless shuffled stream -> batches, sharded by host.

rows = WindowRows(corpus, length=512)                  # random access, see research/data/rows.py
source = Batches(Stream(rows, seed=0), batch_size=8)
source.batch(step)                                     # dict[str, np.ndarray], the same for every call and process
"""

import queue
import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from .permutation import mixed_key, permute

Row = dict[str, np.ndarray]


class Rows(Protocol):
    """Random access to training rows; `rng` is the row's own generator, for what is drawn anew each time."""

    def __len__(self) -> int: ...

    def row(self, index: int, rng: np.random.Generator) -> Row: ...


class Positions(Protocol):
    """An endless sequence of rows (a `Stream` or a `Mixture`)."""

    seed: int

    def at(self, position: int, rng: np.random.Generator) -> Row: ...

    def describe(self) -> dict: ...


class Source(Protocol):
    """What the training loop reads: `batch(step)`; `state` and `restore` for its checkpoint (JSON values)."""

    def batch(self, step: int) -> Row: ...

    def state(self, step: int) -> dict: ...

    def restore(self, state: dict) -> int: ...


class Stream:
    """Rows over and over, each epoch in an order of its own that is computed, not stored."""

    def __init__(self, rows: Rows, seed: int = 0, *, shuffle: bool = True):
        if len(rows) == 0:
            raise ValueError(f"{type(rows).__name__} holds no rows: nothing to train on")
        self.rows, self.seed, self.shuffle = rows, seed, shuffle

    def __len__(self) -> int:
        """Rows of one epoch."""
        return len(self.rows)

    def index(self, position: int) -> int:
        """Which row stands at `position` of the endless stream."""
        epoch, within = divmod(position, len(self.rows))
        if not self.shuffle:
            return within
        return int(permute(within, len(self.rows), mixed_key(self.seed, epoch)))

    def at(self, position: int, rng: np.random.Generator) -> Row:
        return self.rows.row(self.index(position), rng)

    def describe(self) -> dict:
        return {"rows": len(self.rows), "seed": self.seed, "shuffle": self.shuffle}


class Batches:
    """Batches of a stream; host `shard = (index, count)` gets the index-th of `count` equal blocks of rows.

    However many hosts there are, their blocks one after another are the same global batch. `batch_size` counts the
    rows of all hosts. Raises ValueError if the hosts cannot share it evenly.
    """

    def __init__(self, stream: Positions, batch_size: int, *, shard: tuple[int, int] = (0, 1)):
        index, count = shard
        if not 0 <= index < count:
            raise ValueError(f"shard {index} of {count}: expected 0 <= index < count")
        if batch_size <= 0 or batch_size % count:
            raise ValueError(f"batch_size {batch_size} does not divide over {count} hosts")
        self.stream, self.batch_size, self.shard = stream, batch_size, shard

    def positions(self, step: int) -> range:
        """Positions in the stream of this host's rows at `step`."""
        index, count = self.shard
        first, each = step * self.batch_size, self.batch_size // count
        return range(first + index * each, first + (index + 1) * each)

    def batch(self, step: int) -> Row:
        """Arrays [B / hosts, ...] of one step."""
        rows = [self.stream.at(p, np.random.default_rng((self.stream.seed, p))) for p in self.positions(step)]
        return stack(rows)

    def example_batch(self) -> Row:
        """The first batch: shapes and dtypes for compilation."""
        return self.batch(0)

    def state(self, step: int) -> dict:
        """JSON for a checkpoint: the step, and what must be equal for it to mean the same data."""
        return {"step": step, "batch_size": self.batch_size, **self.stream.describe()}

    def restore(self, state: dict) -> int:
        """The step to go on from; raises ValueError if the state belongs to other data."""
        mine = self.state(state["step"])
        wrong = {k: (state.get(k), v) for k, v in mine.items() if state.get(k) != v}
        if wrong:
            told = ", ".join(f"{k} {was!r} then, {now!r} now" for k, (was, now) in wrong.items())
            raise ValueError(f"the checkpoint was made with other data: {told}")
        return state["step"]


def one_pass(rows: Rows, batch_size: int, *, seed: int = 0, shard: tuple[int, int] = (0, 1)) -> Iterator[Row]:
    """Every row once in order, for evaluation; the last batch is filled up with padding (zero loss mask, segment 0).

    Each call draws the same noise (row i from (seed, i)), so two evaluations see the same corruption.
    """
    index, count = shard
    if batch_size % count:
        raise ValueError(f"batch_size {batch_size} does not divide over {count} hosts")
    each = batch_size // count
    for first in range(index * each, len(rows) + index * each, batch_size):
        mine = range(first, first + each)
        yield stack([_row_or_padding(rows, i, seed) for i in mine])


def _row_or_padding(rows: Rows, index: int, seed: int) -> Row:
    if index < len(rows):
        return rows.row(index, np.random.default_rng((seed, index)))
    row = rows.row(0, np.random.default_rng((seed, 0)))
    blank = ("loss_mask", "segment_ids", "input_segment_ids")
    return {key: np.zeros_like(value) if key in blank else value for key, value in row.items()}


def stack(rows: list[Row]) -> Row:
    """Rows of equal keys and shapes as arrays [B, ...]; the error names the key that differs."""
    for row in rows[1:]:
        if row.keys() != rows[0].keys():
            raise ValueError(f"rows of different kinds in one batch: {sorted(rows[0])} and {sorted(row)}")
    try:
        return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    except ValueError:
        shapes = {key: sorted({row[key].shape for row in rows}) for key in rows[0]}
        raise ValueError(f"rows of different shapes in one batch: {shapes}") from None


class Prefetch:
    """A source whose next batches are made in a thread while the device works; `batch(step)` is unchanged.

    Steps asked for in order come from the queue; any other step restarts the queue there. Close it, or use `with`.
    """

    def __init__(self, source: Source, depth: int = 2):
        self._source, self._depth = source, depth
        self._queue: queue.Queue = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._next = -1

    def batch(self, step: int) -> Row:
        if step != self._next or self._thread is None:
            self._start(step)
        found, value = self._queue.get()
        self._next = step + 1
        if found == step:
            return value
        self.close()
        raise value  # the error of the thread, raised where the batch was asked for

    def example_batch(self) -> Row:
        return self._source.batch(0)

    def state(self, step: int) -> dict:
        return self._source.state(step)

    def restore(self, state: dict) -> int:
        return self._source.restore(state)

    def _start(self, step: int) -> None:
        self.close()
        self._stop, self._queue = threading.Event(), queue.Queue(maxsize=self._depth)
        arguments = (step, self._queue, self._stop)
        self._thread = threading.Thread(target=self._work, args=arguments, daemon=True, name="prefetch")
        self._thread.start()

    def _work(self, step: int, out: queue.Queue, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                item = (step, self._source.batch(step))
            except Exception as error:
                item = (-1, error)  # type: ignore[assignment]
            while not stop.is_set():
                try:
                    out.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if item[0] < 0:
                return
            step += 1

    def close(self) -> None:
        """Stop the thread; a later `batch` starts a new one."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_) -> None:
        self.close()
