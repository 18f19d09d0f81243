"""What a job runs on each of its tasks: one command, joined to the others, whose end is written beside it.

A cell of a sweep is a folder:
    cell.json            its settings and its command
    outcome-<task>.json  {"state": "finished" | "stopped" | "failed", "code", "message", "seconds", "tasks"}
    log-<task>.txt       what the command says, of every start
    lock-<task>          held while the command runs; a second start of the same cell waits for the first one
    run/                 the command's --workdir
"""

import collections
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

_KEPT_LINES = 40
_STOPPED = 130  # of a command that a signal ended in good order: started again, it goes on


@dataclass(frozen=True)
class Task:
    """`command` with the variables by which the tasks of a job find each other (`joined`)."""

    command: Sequence[str]
    cell: Path
    gpus: bool = False

    def __call__(self) -> int:
        """Runs the command unless it is finished already; its exit code."""
        place = submitit.JobEnvironment()
        with _alone(self.cell / f"lock-{place.global_rank}") as lock:
            before = read(self.cell / f"outcome-{place.global_rank}.json")
            if before.get("state") == "finished" and before.get("tasks") == place.num_tasks:
                return 0
            begun = time.monotonic()
            log = self.cell / f"log-{place.global_rank}.txt"
            code, lines = _run(self.command, os.environ | joined(place, gpus=self.gpus), log, lock)
            outcome = {
                "state": {0: "finished", _STOPPED: "stopped"}.get(code, "failed"),
                "code": code,
                "message": "" if code == 0 else told(lines, code),
                "seconds": round(time.monotonic() - begun, 1),
                "tasks": place.num_tasks,
            }
            write(self.cell / f"outcome-{place.global_rank}.json", outcome)
        return code

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """At a time limit or a preemption the job is queued again: the command goes on from its own checkpoint."""
        for child in _running:
            child.terminate()
        for child in _running:
            child.wait()
        return submitit.helpers.DelayedSubmission(self)


_running: list[subprocess.Popen] = []


def joined(place: Any, *, gpus: bool) -> dict[str, str]:
    """Variables that make the command process `global_rank` of `num_tasks`; none of a single task.

    `place`: a `submitit.JobEnvironment`. With GPUs each task of a machine takes the one of its own number.
    """
    if place.num_tasks == 1:
        return {}
    # As jax.distributed chooses on SLURM: a port that follows from the job, in the range that is free for such use.
    number = int("".join(c for c in place.job_id if c.isdigit()))
    host = "localhost" if place.num_nodes == 1 else place.hostnames[0]
    variables = {
        "JAX_COORDINATOR_ADDRESS": f"{host}:{61440 + number % 4096}",
        "JAX_NUM_PROCESSES": str(place.num_tasks),
        "JAX_PROCESS_ID": str(place.global_rank),
    }
    return variables | ({"JAX_LOCAL_DEVICE_IDS": str(place.local_rank)} if gpus else {})


def _run(command: Sequence[str], environment: Mapping[str, str], log: Path, lock: int) -> tuple[int, list[str]]:
    """(exit code, last lines) of a command; it shares the lock, and is told to stop when its task is."""
    # The signal that the job's time is over is for the task alone: the command hears SIGTERM from `checkpoint`.
    handler = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    with log.open("a") as out:
        begin = out.tell()
        try:
            process = subprocess.Popen(
                list(command), env=dict(environment), stdout=out, stderr=subprocess.STDOUT, pass_fds=(lock,)
            )
        except OSError as error:
            return 127, [f"error: {command[0]}: {error.strerror}"]
        finally:
            signal.signal(signal.SIGUSR2, handler)
    _running.append(process)
    try:
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
        _running.remove(process)
    with log.open(errors="replace") as said:
        said.seek(begin)
        return code, list(collections.deque((line.rstrip() for line in said), maxlen=_KEPT_LINES))


def told(lines: Sequence[str], code: int) -> str:
    """The line in which a command says why it failed: its `error: ...`, else its last one."""
    spoken = [line.strip() for line in lines if line.strip()]
    errors = [line for line in spoken if line.startswith("error:")]
    ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return (errors or spoken or [""])[-1] or ended if code >= 0 else " ".join([ended, *errors[-1:]])


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[int]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system lets go of it with the process, however that ends
        yield file.fileno()


def is_running(cell: Path) -> bool:
    """Whether some task of the cell holds its lock."""
    for path in cell.glob("lock-*"):
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def read(path: Path) -> dict[str, Any]:
    """A JSON object, or {} where there is none or only a part of one."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def write(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON object, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(path)
