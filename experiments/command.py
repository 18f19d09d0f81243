"""What every command does around its work: --config and --workdir, settings of the process, errors in one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from research.core import memory
from research.data import tfds_source
from research.training import log
from research.training.fit import Diverged

Work = Callable[[dict[str, Any], Path, Console], int | None]


def run(work: Work, *, config: str | None = None, workdir: str | None = None) -> None:
    """Reads the command line, calls `work(config, workdir, console)` and exits with what it returns (None: 0).

    A refusal (ValueError, OSError, Diverged) is one line and exit code 2, an interruption exit code 130;
    --verbosity=1 shows where it came from. `config` and `workdir` are defaults; None makes the flag required.
    """
    # Flags are defined here and not on import, so that a process may import several commands.
    chosen = config_flags.DEFINE_config_file("config", config, "what to do (configs/*.py)")
    folder = flags.DEFINE_string("workdir", workdir, "where everything that the command makes goes")
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
            log.check_writable(path)
            sys.exit(work(chosen.value.to_dict(), path, console))
        except KeyboardInterrupt as reason:
            console.print(f"[yellow]{str(reason) or 'interrupted'}; start the same command again to go on from here[/]")
            sys.exit(130)
        except (ValueError, OSError, Diverged) as error:
            if logging.level_debug():
                raise
            console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            sys.exit(2)

    app.run(main)
