"""Runs the cells of a sweep that are not finished, a few at a time, and says how each ended."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import submitit
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tools.launch import task
from tools.launch.grid import Sweep

_QUEUED = {"PENDING", "CONFIGURING", "RUNNING", "REQUEUED", "COMPLETING", "SUSPENDED"}
_SILENT = "it ended without a word (killed?)"


def outcome(cell: Path) -> dict[str, Any]:
    """{"state", "message", "seconds"} of a cell, from those of its tasks; states are those of a task, running and new.

    Of several tasks the message is that of the one that failed by itself, not of those that lost it.
    """
    each = {path.stem: task.read(path) for path in sorted(cell.glob("outcome-*.json"))}
    tasks = each.get("outcome-0", {}).get("tasks", 0)
    own = [each[key] for key in (f"outcome-{i}" for i in range(tasks)) if key in each]
    bad = [one for one in own if one["state"] != "finished"]
    if tasks and len(own) == tasks and not bad:
        return {"state": "finished", "message": "", "seconds": max(one["seconds"] for one in own)}
    if task.is_running(cell):
        return {"state": "running", "message": ""}
    if not bad:
        return {"state": "failed", "message": _SILENT} if each else {"state": "new", "message": ""}
    chosen = min(bad, key=lambda one: (one["state"] != "failed", "another host ended" in one["message"]))
    return {key: chosen[key] for key in ("state", "message", "seconds")}


def run(sweep: Sweep, executor: Any, *, at_once: int, console: Console, gpus: bool = False, poll: float = 0.2) -> bool:
    """Whether all cells are finished in the end. On SLURM all are queued at once, and it minds how many run.

    Raises:
      KeyboardInterrupt: jobs on this machine are stopped first; those on SLURM go on.
    """
    cells = sweep.cells()
    todo = [one for one in cells if outcome(sweep.cell(one))["state"] != "finished"]
    if done := len(cells) - len(todo):
        console.print(f"{done} of {len(cells)} cells are finished already", highlight=False)
    running: dict[Path, Any] = {}
    queue = isinstance(executor, submitit.AutoExecutor)
    if queue:
        running = _queue(sweep, executor, todo, console, gpus)
        todo = []
    with _bar(len(cells), len(cells) - len(todo) - len(running), console) as ended:
        try:
            while todo or running:
                while todo and len(running) < at_once:
                    cell = _prepare(sweep, todo[0])
                    running[cell] = executor.submit(task.Task(sweep.words(todo.pop(0)), cell, gpus))
                time.sleep(poll)
                for cell in [cell for cell, job in running.items() if job.done()]:
                    del running[cell]
                    ended(cell.name, _closed(cell))
        except KeyboardInterrupt:
            if not queue:
                for job in running.values():
                    job.cancel()
                for job in running.values():
                    job.wait()
            raise
    return all(outcome(sweep.cell(one))["state"] == "finished" for one in cells)


def _prepare(sweep: Sweep, settings: Mapping[str, str]) -> Path:
    cell = sweep.cell(settings)
    cell.mkdir(parents=True, exist_ok=True)
    task.write(cell / "cell.json", {"settings": dict(settings), "command": sweep.words(settings)})
    if not task.is_running(cell):  # else what an earlier start is about to say counts
        for path in cell.glob("outcome-*.json"):
            path.unlink()
    return cell


def _closed(cell: Path) -> dict[str, Any]:
    """The outcome of a cell whose job has ended, which is written down if the job could not do it."""
    found = outcome(cell)
    if found["state"] in ("new", "running"):
        found = {"state": "failed", "code": -1, "message": _SILENT, "seconds": 0.0, "tasks": 1}
        task.write(cell / "outcome-0.json", found)
    return found


def _queue(
    sweep: Sweep, executor: Any, todo: Sequence[Mapping[str, str]], console: Console, gpus: bool
) -> dict[Path, Any]:
    """Cell -> its job on SLURM: one that an earlier start has queued, or a new one of an array."""
    running, fresh = {}, []
    for settings in todo:
        cell = sweep.cell(settings)
        number = task.read(cell / "job.json").get("job")
        before = submitit.SlurmJob(executor.folder, number) if number else None
        if before is not None and before.state in _QUEUED:
            running[cell] = before
        else:
            fresh.append(settings)
    with executor.batch(allow_implicit_submissions=True):
        made = [(_prepare(sweep, one), one) for one in fresh]
        jobs = [(cell, executor.submit(task.Task(sweep.words(one), cell, gpus))) for cell, one in made]
    for cell, job in jobs:
        task.write(cell / "job.json", {"job": job.job_id})
        running[cell] = job
    numbers = sorted({str(job.job_id).split("_")[0] for job in running.values()})
    console.print(f"SLURM jobs {', '.join(numbers)}; Ctrl-C leaves them there, the same command comes back to them")
    return running


@contextmanager
def _bar(total: int, done: int, console: Console) -> Iterator[Any]:
    """A bar of finished cells; a function that counts one more and says how it ended."""
    failed = 0
    columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("cells", total=total, completed=done)

        def ended(name: str, found: Mapping[str, Any]) -> None:
            nonlocal done, failed
            done, failed = done + 1, failed + (found["state"] != "finished")
            bar.update(shown, completed=done)
            why = f": {found['message']}" if found["message"] else ""
            told = f"{done} of {total}, {failed} not finished  {name} {found['state']}{why}"
            console.print(told, markup=False, highlight=False, soft_wrap=True)

        yield ended
