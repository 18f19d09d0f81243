"""The main job: tokenizer, pre-training, compression, tuning, answers, samples and a report, from one command.

    python -m experiments.lifecycle --config=configs/lifecycle.py [--workdir=runs/lifecycle]

Stages are in experiments/stages/; each is done once and remembered under a hash of its config, inputs and code, so an
interrupted job goes on where it was, and a changed setting repeats only what depends on it.
"""

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

# Also as `python experiments/lifecycle.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.stages import STAGES, Done, Interrupted, learning, run_all
from research.core import compilation
from research.report import print_table, seconds
from research.training import log

CONFIG = config_flags.DEFINE_config_file("config", "configs/lifecycle.py", "settings of all stages")
WORKDIR = flags.DEFINE_string("workdir", "runs/lifecycle", "where stages keep their work and the report goes")


def summary(done: Mapping[str, Done], console: Console) -> None:
    """What came out, in three small tables."""
    compression, scores = done["compression"].result, done["answers"].result["scores"]
    print_table(
        "Held-out text",
        ["method", "bits per byte"],
        sorted(
            [
                ["this model", round(compression["model"], 4)],
                ["xz, primed with the training text", round(compression["xz"], 4)],
                ["n-gram over bytes, Kneser-Ney", round(compression["ngram"], 4)],
            ],
            key=lambda row: row[1],
        ),
        console=console,
    )
    metrics = list(scores["after tuning"]["all"])
    print_table(
        f"Answers to {done['answers'].result['questions']} questions about held-out functions",
        ["method", *metrics],
        [[method, *(f"{by_task['all'][m][1]:.3f}" for m in metrics)] for method, by_task in scores.items()],
        console=console,
    )
    print_table(
        "Time", ["stage", "took"], [[name, seconds(stage.seconds)] for name, stage in done.items()], console=console
    )


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; settings are given as --config.name=value")
    if not logging.level_debug():  # checkpoints report every transfer otherwise
        logging.set_verbosity(logging.WARNING)
    console, workdir, start = Console(), Path(WORKDIR.value).absolute(), time.monotonic()
    config = CONFIG.value.to_dict()
    log.check_writable(workdir)
    compilation.use_cache()
    try:
        learning.check(config, ("pretrain", "tune"))
        done = run_all(STAGES, config, workdir, console=console)
    except (Interrupted, KeyboardInterrupt) as reason:
        console.print(f"[yellow]{reason or 'interrupted'}; start the same command again to go on from here[/]")
        sys.exit(130)
    except ValueError as error:
        if logging.level_debug():  # --verbosity=1 shows where it came from
            raise
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    report = workdir / "report.html"
    shutil.copyfile(done["page"].folder / "report.html", report)
    summary(done, console)
    console.print(f"Done in {seconds(time.monotonic() - start)}. The report: [bold]{report}[/]", soft_wrap=True)


if __name__ == "__main__":
    app.run(main)
