"""Small base models of the three families, made from the Python documentation and the standard library's source.

    python -m experiments.base_models --config=configs/base_decoder.py [--workdir=runs/base]

The tokenizer is trained once and shared; a model is trained once per config and remembered under its hash. The model is
left as a Hugging Face folder in <workdir>/<name>, its held-out loss in <workdir>/<name>.json.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

# Also as `python experiments/base_models.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.stages import learning, run_all
from experiments.stages.base import STAGES
from research.core import compilation
from research.report import print_table, seconds


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Trains what is not there yet, and leaves model and figures under the config's name."""
    compilation.use_cache()
    learning.check(config, ("pretrain",))
    done = run_all(STAGES, config, workdir, console=console)
    trained, folder = done["base"], workdir / config["name"]
    shutil.copytree(trained.folder / "model", folder, dirs_exist_ok=True)
    numbers = {name: trained.result[name] for name in ("parameters", "steps", "tokens", "loss", "accuracy")}
    record = {"name": config["name"], "key": trained.key, "seconds": trained.seconds, **numbers}
    (workdir / f"{config['name']}.json").write_text(json.dumps(record, indent=1) + "\n")
    rows = [[name, value] for name, value in numbers.items()] + [["time", seconds(trained.seconds)]]
    print_table(f"{config['name']}, held out", ["", "value"], rows, console=console)
    console.print(f"The model: [bold]{folder}[/]", soft_wrap=True)


if __name__ == "__main__":
    command.run(work, workdir="runs/base")
