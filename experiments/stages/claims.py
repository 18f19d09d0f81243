"""How processes that share a folder divide its stages: by locks, which the system lets go of however a process ends."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether a stage's folder is this process's for as long as the block lasts; made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def room(workdir: Path, *, alone: bool) -> Iterator[None]:
    """Waits until others leave the machine to this process (alone), or until nobody claims it for himself."""
    with (workdir / "machine.lock").open("w") as machine:
        with (workdir / "queue.lock").open("w") as queue:
            # Who wants to be alone keeps the queue while others end what they do: nobody new gets past him.
            fcntl.flock(queue, fcntl.LOCK_EX)
            fcntl.flock(machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
