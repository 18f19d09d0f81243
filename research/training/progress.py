"""What the person at the terminal sees: a bar with rate and time left, or plain lines where there is no terminal."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from research.core import tree


class Bar:
    """A context manager; `update` is called once per step."""

    def __init__(self, title: str, start: int, steps: int, *, on: bool = True, every: float = 10.0) -> None:
        """`every`: seconds between the plain lines that stand for the bar where there is no terminal."""
        self._console = Console(quiet=jax.process_index() > 0)
        self._title, self._steps, self._on, self._every = title, steps, on, every
        self._printed = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not on or not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=steps, completed=start, numbers="")

    def update(self, step: int, numbers: Mapping[str, float]) -> None:
        """Shows the numbers of a finished step."""
        text = "  ".join(f"{name} {value:,.4g}" for name, value in numbers.items())
        self._bar.update(self._task, completed=step, numbers=text)
        now = time.monotonic()
        if self._on and not self._console.is_terminal and (now - self._printed > self._every or step == self._steps):
            self._printed = now
            self.say(f"{self._title} {step}/{self._steps}  {text}")

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()


class Rate:
    """Tokens per second since the last reading."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._tokens, self._since = clock, 0, clock()

    def add(self, tokens: int) -> None:
        """Counts the tokens of one batch."""
        self._tokens += tokens

    def read(self) -> float:
        """The rate since the last call; starts the next interval."""
        now = self._clock()
        rate = self._tokens / max(now - self._since, 1e-9)
        self._tokens, self._since = 0, now
        return rate


def parameter_table(params: Any, frozen: Any = None) -> Table:
    """Path, shape, type and count of every weight, trainable ones first, with totals below."""
    table = Table(title="weights", title_justify="left")
    for name, justify in (("path", "left"), ("shape", "left"), ("type", "left"), ("count", "right"), ("", "left")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for part, note in ((params, ""), (frozen, "frozen")):
        for path, shape, dtype, count in tree.table(part):
            table.add_row(path, str(shape), dtype, f"{count:,}", note)
    table.add_section()
    table.add_row("trainable", "", "", f"{tree.count(params):,}", f"{tree.nbytes(params) / 2**20:,.1f} MiB")
    if n_frozen := tree.count(frozen):
        table.add_row("frozen", "", "", f"{n_frozen:,}", f"{tree.nbytes(frozen) / 2**20:,.1f} MiB")
    return table
