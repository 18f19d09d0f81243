"""Tables and progress bars in the terminal."""

from collections.abc import Iterable, Sequence
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column, Table
from rich.text import Text


def seconds(duration: float) -> str:
    """A duration as people say it: 0.4 s, 12 s, 3 min 05 s, 2 h 07 min."""
    if duration < 9.95:
        return f"{duration:.1f} s"
    whole = round(duration)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rich_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table for the terminal: the first column to the left, all others, being numbers, to the right.

    Raises ValueError when a row has not as many cells as the header.
    """
    result = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        result.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"table {title!r} has {len(header)} columns {list(header)}, but a row has {list(row)}")
        result.add_row(*(Text(cell_text(cell)) for cell in row))
    return result


def print_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[object]], *, console: Console | None = None
) -> None:
    """Prints `rich_table` of the same arguments."""
    (console or Console()).print(rich_table(title, header, rows))


def cell_text(cell: object) -> str:
    """A table cell: numbers short, None as a dash, everything else as it prints."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:.4g}" if abs(cell) < 1000 else f"{cell:,.0f}"
    return str(cell)


class _Rate(ProgressColumn):
    """Units per second over the whole bar, and the time left at that rate."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time if task.finished else task.elapsed
        done = task.completed - task.fields["already"]
        if not elapsed or done <= 0:
            return Text("")
        rate = done * task.fields["units_per_step"] / elapsed
        number = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
        if task.finished:
            return Text(f"{number} {task.fields['unit']}/s · took {seconds(elapsed)}", style="dim")
        left = (task.total - task.completed) * elapsed / done if task.total else 0.0
        return Text(f"{number} {task.fields['unit']}/s · {seconds(left)} left", style="cyan")


class Steps:
    """A progress bar over counted steps with rate and time left: `with Steps("tune", 100) as bar: bar.advance()`.

    `units_per_step` converts steps into the unit of the rate (tokens per step, say), `already` is the number of
    steps that an earlier run has done: they count as done and not towards the rate.
    """

    def __init__(
        self,
        name: str,
        total: int,
        *,
        unit: str = "steps",
        units_per_step: float = 1,
        already: int = 0,
        console: Console | None = None,
    ):
        self._progress = Progress(
            TextColumn("  {task.description:<18}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=12),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            _Rate(table_column=Column(no_wrap=True)),
            TextColumn("[dim]{task.fields[message]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console or Console(),
        )
        self._task = self._progress.add_task(
            name, total=total, completed=already, unit=unit, units_per_step=units_per_step, already=already, message=""
        )

    def advance(self, steps: int = 1, message: str | None = None) -> None:
        """Counts `steps` more as done and, if given, shows a short message (a loss) behind the rate."""
        if message is not None:
            self._progress.update(self._task, message=message)
        self._progress.advance(self._task, steps)

    def __enter__(self) -> "Steps":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
