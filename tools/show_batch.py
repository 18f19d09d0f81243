"""Print the first batch of a config's data: one colour per document, predicted tokens bold, padding counted.

    python tools/show_batch.py --config=configs/lifecycle.py --tokenizer=FOLDER [--step=0] [--rows=2]

The config is a file with `get_config()`; its `data` section (or the whole) is read as research/data/build.py says.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

from rich.console import Console

from research.data.build import build_source
from research.data.check_batch import check_batch
from research.data.show import render
from research.data.tokenizer import load_tokenizer


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="configs/name.py, or configs/name.py:argument")
    parser.add_argument("--tokenizer", required=True, help="'bytes', a tokenizer file or a folder")
    parser.add_argument("--step", type=int, default=0)
    parser.add_argument("--rows", type=int, default=2)
    options = parser.parse_args(arguments)
    console = Console()
    try:
        tokenizer = load_tokenizer(options.tokenizer)
        config = load_config(options.config)
        batch = build_source(config.get("data", config), tokenizer).batch(options.step)
        check_batch(batch, tokenizer.vocab_size)
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    console.print(render(batch, tokenizer, rows=options.rows), soft_wrap=True)
    return 0


def load_config(name: str):
    """The config of a file; `name` may carry an argument after a colon."""
    path, _, argument = name.partition(":")
    if not Path(path).is_file():
        raise FileNotFoundError(f"no config file {path}")
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument) if argument else module.get_config()


if __name__ == "__main__":
    sys.exit(main())
