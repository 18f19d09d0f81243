"""Small base models of the three families, made from the Python documentation and the standard library's source.

    python -m experiments.base_models --config=configs/base_decoder.py [--workdir=runs/base]

The tokenizer is trained once and shared; a model is trained once per config and remembered under its hash. The model is
left as a Hugging Face folder in <workdir>/<name>, its held-out loss in <workdir>/<name>.json.
"""

import json
import shutil
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

# Also as `python experiments/base_models.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.stages import Interrupted, learning, run_all
from experiments.stages.base import STAGES
from research.core import compilation
from research.report import print_table, seconds
from research.training import log

CONFIG = config_flags.DEFINE_config_file("config", None, "settings of one base model (configs/base_*.py)")
WORKDIR = flags.DEFINE_string("workdir", "runs/base", "where base models are kept")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; settings are given as --config.name=value")
    if not logging.level_debug():  # checkpoints report every transfer otherwise
        logging.set_verbosity(logging.WARNING)
    console, workdir, config = Console(), Path(WORKDIR.value).absolute(), CONFIG.value.to_dict()
    log.check_writable(workdir)
    compilation.use_cache()
    try:
        learning.check(config, ("pretrain",))
        done = run_all(STAGES, config, workdir, console=console)
    except (Interrupted, KeyboardInterrupt) as reason:
        console.print(f"[yellow]{reason or 'interrupted'}; start the same command again to go on from here[/]")
        sys.exit(130)
    except ValueError as error:
        if logging.level_debug():  # --verbosity=1 shows where it came from
            raise
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    trained, folder = done["base"], workdir / config["name"]
    shutil.copytree(trained.folder / "model", folder, dirs_exist_ok=True)
    numbers = {name: trained.result[name] for name in ("parameters", "steps", "tokens", "loss", "accuracy")}
    record = {"name": config["name"], "key": trained.key, "seconds": trained.seconds, **numbers}
    (workdir / f"{config['name']}.json").write_text(json.dumps(record, indent=1) + "\n")
    rows = [[name, value] for name, value in numbers.items()] + [["time", seconds(trained.seconds)]]
    print_table(f"{config['name']}, held out", ["", "value"], rows, console=console)
    console.print(f"The model: [bold]{folder}[/]", soft_wrap=True)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
