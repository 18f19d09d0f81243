"""A second process of the main job: it does stages that are ready while the first one is busy with others.

    python -m experiments.stages.helper [flags of experiments.lifecycle]

The first process starts it and reads its results from the folder they share. It ends with that process, whose end it
notices by its input; a stage that fails here is done again, and fails, where people see it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import command
from experiments.stages import STAGES, run_all
from research.core import compilation


@contextlib.contextmanager
def helping(arguments: Sequence[str], workdir: Path) -> Iterator[None]:
    """Runs a helper with these flags for as long as the block lasts; what it says goes to workdir/helper.log."""
    start = [sys.executable, "-m", "experiments.stages.helper", *arguments]
    with (workdir / "helper.log").open("a") as said:
        process = subprocess.Popen(start, stdin=subprocess.PIPE, stdout=said, stderr=said)
        try:
            yield
        finally:
            process.communicate()  # closes its input
            if process.returncode not in (0, 130, -signal.SIGTERM):
                print(f"the second process ended with exit code {process.returncode}: see {said.name}")


def _end_with_input() -> None:
    """SIGTERM to this process at the end of its input; a training run saves what it has then."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Stages until all are done."""
    _end_with_input()
    compilation.use_cache()
    run_all(STAGES, config, workdir, console=console)


if __name__ == "__main__":
    command.run(work, config="configs/lifecycle.py", workdir="runs/lifecycle")
