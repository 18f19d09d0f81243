"""What every command does around its work: --config and --workdir, settings of the process, errors in one line."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from research.core import hosts, memory
from research.data import tfds_source
from research.training import log
from research.training.fit import Diverged

Work = Callable[[dict[str, Any], Path, Console], int | None]


def run(work: Work, *, config: str | None = None, workdir: str | None = None, several_hosts: bool = False) -> None:
    """Reads the command line, calls `work(config, workdir, console)` and exits with what it returns (None: 0).

    A refusal (ValueError, OSError, Diverged) is one line and exit code 2, an interruption exit code 130;
    --verbosity=1 shows where it came from. `config` and `workdir` are defaults; None makes the flag required.
    several_hosts: the command may run as several processes; then only the first one talks, except of errors.
    """
    # Flags are defined here and not on import, so that a process may import several commands.
    chosen = config_flags.DEFINE_config_file("config", config, "what to do (configs/*.py)")
    folder = flags.DEFINE_string("workdir", workdir, "where everything that the command makes goes")
    joining = _hosts_flags() if several_hosts else lambda: None
    flags.mark_flags_as_required([name for name, given in (("config", config), ("workdir", workdir)) if given is None])

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments {argv[1:]}; settings are given as --config.name=value")
        if not logging.level_debug():  # checkpoints report every transfer otherwise
            logging.set_verbosity(logging.WARNING)
        memory.keep_freed()
        tfds_source.start_threads()
        console, path = Console(), Path(folder.value).absolute()
        try:
            joining()
            console.quiet = not hosts.is_first()
            log.check_writable(path)
            code = work(chosen.value.to_dict(), path, console)
            hosts.meet("end")
            sys.exit(code)
        except KeyboardInterrupt as reason:
            console.print(f"[yellow]{str(reason) or 'interrupted'}; start the same command again to go on from here[/]")
            sys.exit(130)
        except (ValueError, OSError, Diverged) as error:
            if logging.level_debug():
                raise
            _say_error(error)
            sys.exit(2)
        except RuntimeError as error:
            if not hosts.several() or logging.level_debug():
                raise
            _say_error(
                f"stopped, most likely because another host ended: {str(error).splitlines()[0]}; start the same "
                "command on all hosts to go on from the last checkpoint"
            )
            os._exit(1)  # in good order it would wait for those that are gone

    app.run(main)


def _say_error(told: object) -> None:
    where = f"{hosts.name()}: " if hosts.several() else ""
    Console().print(f"error: {where}{told}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.stdout.flush()


def _hosts_flags() -> Callable[[], None]:
    """Defines the flags of a command that several processes run, and gives back what joins these."""
    wanted = flags.DEFINE_boolean(
        "distributed",
        None,
        f"run as one of several processes (default: where {hosts.ADDRESS} or a flag below is given)",
    )
    address = flags.DEFINE_string("coordinator_address", "", f"host:port of process 0; else {hosts.ADDRESS}")
    count = flags.DEFINE_integer("num_processes", 0, f"how many processes there are; else {hosts.COUNT}")
    index = flags.DEFINE_integer("process_id", -1, f"which of them this is, from 0; else {hosts.INDEX}")

    def joining() -> None:
        given = bool(address.value or count.value or index.value >= 0)
        if given and wanted.value is False:
            raise ValueError("--nodistributed and a flag of several processes contradict each other")
        tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
        if wanted.value or (wanted.value is None and (given or os.environ.get(hosts.ADDRESS))):
            hosts.join(address.value, count.value, index.value)
        elif wanted.value is None and tasks > 1:
            raise ValueError(
                f"this is one of {tasks} tasks of a SLURM step: --distributed joins them, --nodistributed not"
            )

    return joining
