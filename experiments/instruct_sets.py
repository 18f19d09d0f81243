"""Instruction tuning of a small decoder on a mixture of instruction sets: all weights, LoRA, and from scratch.

    python -m experiments.instruct_sets --config=configs/instruct_sets.py --workdir=runs/instruct_sets

A cell is (method, seed): one JSON file in the folder. Started again, only what is missing is done. Every set has a
held-out loss and scores of greedy answers, beside its most common answer and that of the nearest training example.
"""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

# Also as `python experiments/instruct_sets.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.answering import (
    Examples,
    Part,
    baseline_cell,
    check,
    common,
    nearest_example,
    prompt_ids,
    report,
    run_cell,
)
from experiments.cells import Cell, data_folder, sweep
from research.core import compilation, tree
from research.data import load_tokenizer
from research.data.build import DataConfig, examples
from research.data.templates import as_pair
from research.interop import load_pretrained
from research.models import Model, build

LONG = 5  # words
BASELINES = {"most common answer": common, "nearest training example": nearest_example}


def read_set(section: Mapping[str, Any], root: Path, heldout: float) -> tuple[Examples, Examples]:
    """Training and held-out examples of some files of the data folder, through the section's templates if it has any.

    Raises:
      ValueError: an example without a prompt and a completion; names the file.
    """
    sides: tuple[Examples, Examples] = ([], [])
    for file in section["files"]:
        data = DataConfig(
            kind="examples",
            path=str(root / file),
            objective="tune",
            templates=tuple(section["templates"]),
            heldout=heldout,
        )
        for side, split in zip(sides, ("train", "heldout"), strict=True):
            for number, example in enumerate(examples(data, split)):
                pair = as_pair(example)
                if pair is None or not all(text.strip() for text in pair):
                    raise ValueError(
                        f"{split} split of {data.path}: example {number} has columns {sorted(example)}; expected a "
                        "prompt and a completion that are not empty, or templates that make them"
                    )
                side.append({"prompt": pair[0], "completion": pair[1].strip()})
    # Published rows repeat: a long answer that is also held out would be known (short ones, yes and no, are common).
    held = {e["completion"] for e in sides[1] if len(e["completion"].split()) >= LONG}
    return [e for e in sides[0] if e["completion"] not in held], sides[1]


def fitting(found: Examples, model: Model, tokenizer: Any, settings: Mapping[str, Any]) -> Examples:
    """The examples that a row holds whole, and whose prompts leave room for an answer."""
    kept = []
    for example in found:
        answer = max(len(tokenizer.encode(example["completion"])) + 1, settings["max_new_tokens"])
        if len(prompt_ids(model, example["prompt"], tokenizer, settings)) + answer <= settings["length"]:
            kept.append(example)
    return kept


def read_parts(
    config: Mapping[str, Any], root: Path, model: Model, tokenizer: Any, console: Console
) -> dict[str, Part]:
    """One part for each set; says how many examples of each fit.

    Raises:
      ValueError: a set of which nothing fits on one side.
    """
    parts = {}
    for name, section in config["sets"].items():
        read = read_set(section, root, config["heldout"])
        train, dev = (fitting(side, model, tokenizer, config) for side in read)
        if not train or not dev:
            raise ValueError(f"set {name!r}: {len(train)} training and {len(dev)} held-out examples fit a row")
        told = (
            f"{name}: {len(train) + len(dev)} of {len(read[0]) + len(read[1])} examples fit {config['length']} tokens"
        )
        console.print(told, markup=False, highlight=False)
        rows, dev_rows = config["rows"] or None, config["dev_rows"] or None
        parts[name] = Part(train[:rows], dev[:dev_rows], ("ROUGE-L", "exact match"), BASELINES)
    return parts


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the tables and draws the figure."""
    compilation.use_cache()
    root = data_folder(config["data"])
    check(config["methods"])
    described, base, _ = load_pretrained(config["base"])
    if described.kind != "decoder":
        raise ValueError(f"config.base is a model of kind {described.kind!r}; expected a decoder")
    tokenizer, model = load_tokenizer(config["base"]), build(described, policy=config["policy"], unroll=True)
    parts = read_parts(config, root, model, tokenizer, console)
    common_settings = {k: v for k, v in config.items() if k not in ("methods", "seeds", "base", "data")}
    origin = {"base": tree.fingerprint(base)}
    grid = [
        Cell({"method": name, "seed": 0}, common_settings, partial(baseline_cell, parts, name)) for name in BASELINES
    ]
    grid += [
        Cell(
            {"method": name, "seed": seed},
            {**method, **common_settings, **origin},
            partial(run_cell, config, parts, method, seed, model, base, tokenizer),
        )
        for name, method in config["methods"].items()
        for seed in config["seeds"]
    ]
    report(sweep(grid, workdir, console), parts, workdir / "instruct_sets.png", console)


if __name__ == "__main__":
    command.run(work, config="configs/instruct_sets.py", workdir="runs/instruct_sets")
