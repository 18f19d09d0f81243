"""Print the first batch of a config's data: one colour per document, predicted tokens bold, padding counted.

    python tools/show_batch.py --config=configs/t0_mixture.py --tokenizer=FOLDER [--step=0] [--rows=2]

The config is one of `experiments.train`: its `data` section (or the whole) is read as research/data/build.py says, with
the virtual tokens of its soft prompt in front.
"""

import argparse
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

from research.data.build import build_source
from research.data.check_batch import check_batch
from research.data.show import render
from research.data.tokenizer import load_tokenizer
from research.recipes.assemble import in_sections
from research.weights import Recipe, parse
from research.weights.prompts import Prompt


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
        ids = virtual_ids(config.get("peft") or (), tokenizer.vocab_size)
        batch = build_source(section(options.config, config, ids), tokenizer).batch(options.step)
        check_batch(batch, tokenizer.vocab_size + len(ids))
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    console.print(render(batch, tokenizer, rows=options.rows), soft_wrap=True)
    return 0


def section(name: str, config: Any, ids: list[int]) -> Mapping[str, Any]:
    """The data that the config reads, with the ids of a soft prompt in front of every text.

    Raises:
      ValueError: it has no section of data.
    """
    data = config.get("data", config)
    if not isinstance(data, Mapping | ConfigDict) or not {"kind", "path", "mix"} & set(data.keys()):
        raise ValueError(f"{name} has no data section of experiments.train (kind, path, mix); it has {sorted(config)}")
    if not ids:
        return data
    return in_sections({"data": data}, lambda given: given | {"virtual": tuple(ids)})["data"]


def virtual_ids(recipe: Recipe, words: int) -> list[int]:
    """The ids behind the vocabulary that the recipe's soft prompt answers for."""
    lengths = [method.length for method in parse(recipe) if isinstance(method, Prompt)]
    return list(range(words, words + sum(lengths)))


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
