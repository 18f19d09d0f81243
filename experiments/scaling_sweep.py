"""Small models of many sizes, each trained on many token counts: the points that scaling laws are fitted to.

    python -m experiments.scaling_sweep --config=configs/scaling_sweep.py --workdir=runs/scaling

A cell is (depth, tokens, seed), a whole training run with a schedule of its own: one JSON file. Started again, only
what is missing is done. Then: python -m experiments.fit_scaling_laws --config.points=runs/scaling
"""

import json
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

# Also as `python experiments/scaling_sweep.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, sweep
from experiments.stages.stage import Interrupted, write_lines
from research.core import compilation, tree
from research.data import python_docs
from research.data.build import DataConfig, texts
from research.data.corpus import TokenCorpus
from research.data.prepare import prepare
from research.data.sentencepiece_tokenizer import train_sentencepiece
from research.data.tokenizer import load_tokenizer
from research.models import build
from research.recipes.assemble import assemble, complete, make_model
from research.report import print_table
from research.scaling import flops, grid
from research.training.fit import fit

# A cell has these of its own; everything else is shared by all cells of a folder.
GRID = ("depths", "tokens", "multiples", "budgets", "span", "seeds")


def run_cell(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Trains one model and scores all held-out rows once.

    Raises:
      Interrupted: after SIGTERM or Ctrl-C; nothing of the cell is kept.
    """
    before = time.process_time()
    parts = assemble(config, folder)
    result = fit(parts.state, None, parts.step, parts.source, steps=config["steps"], progress=False)
    if result.stopped == "signal":
        raise Interrupted("interrupted in the middle of a cell")
    scored = parts.evaluate(result.state.params, None)
    return {"loss": scored["loss"], "held_out_tokens": scored["weight"], "cpu_seconds": time.process_time() - before}


def size_of(run: Mapping[str, Any], tokenizer: Any, length: int) -> dict[str, Any]:
    """Parameters of the model with and without its embedding table, and exact FLOPs of a token trained on."""
    described = make_model(run, tokenizer).model.config
    count = tree.count(build(described).abstract())
    table = described.vocab_size * described.d_model
    exact = flops.training(described, length, seen=True) / length
    return {"parameters": count, "parameters_no_embed": count - table, "flops_per_token": exact}


def prepare_text(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Tokenizer and tokenized corpus of the text in `folder`, made once; what they hold, and the text's sha256."""
    file = folder / "text.json"
    if not file.is_file():
        data = DataConfig.of(settings["data"])
        shown = texts(data, "train")
        pieces = train_sentencepiece(shown[:: settings["every"]], settings["vocab_size"], kind="bpe")
        both = [*shown, *texts(data, "heldout")]
        write_lines(folder / "text.jsonl", [{"text": text} for text in both])
        prepare([folder / "text.jsonl"], pieces, folder / "corpus", heldout=data.heldout)
        kept = {
            split: {
                "tokens": (found := TokenCorpus.open(folder / "corpus", split)).num_tokens,
                "bytes": found.num_bytes,
            }
            for split in ("train", "heldout")
        }
        named = [python_docs.Document(str(i), text) for i, text in enumerate(both)]
        file.write_text(json.dumps({"sha256": python_docs.digest(named), **kept}, indent=1) + "\n")
    return json.loads(file.read_text())


def check_same(config: Mapping[str, Any], folder: Path) -> None:
    """Remembers what all cells of a folder share.

    Raises:
      ValueError: the folder holds a sweep of another config; the grid may grow, all else is as it was.
    """
    mine = json.loads(json.dumps({name: value for name, value in config.items() if name not in GRID}))
    file = folder / "sweep.json"
    if not file.is_file():
        file.write_text(json.dumps(mine, indent=1) + "\n")
    kept = json.loads(file.read_text())
    if other := sorted(name for name in {**kept, **mine} if kept.get(name) != mine.get(name)):
        name = other[0]
        raise ValueError(
            f"{folder} holds a sweep of another config: {name} was {kept.get(name)!r}, now {mine.get(name)!r}"
            f"{f' (also other: {other[1:]})' if other[1:] else ''}; choose another --workdir"
        )


def cells(config: Mapping[str, Any], folder: Path, text: Mapping[str, Any]) -> list[Cell]:
    """The grid, the cheapest first, so that an interrupted sweep has whole sizes."""
    dial, tokenizer = grid.dial_of(config["dial"]), load_tokenizer(folder / "corpus" / "tokenizer")
    length, rows = config["length"], config["batch_size"]
    found = []
    for depth in config["depths"]:
        data = {"kind": "corpus", "path": str(folder / "corpus"), "length": length, "batch_size": rows}
        model = {**config["model"], **dial.model(depth)}
        common = {
            "model": model,
            "tokenizer": {"path": str(folder / "corpus" / "tokenizer")},
            "mesh": config["mesh"],
            "evaluate_batches": 0,
        }
        size = size_of(complete({**common, "data": data}), tokenizer, length)
        own = dial.tokens_per_parameter * size["parameters"]
        asked = {name: config[name] for name in ("tokens", "multiples", "budgets", "span")}
        for count in grid.token_counts(size["parameters"], own, per_step=length * rows, **asked):
            steps = count // (length * rows)
            rule = config["optimizer"] | {"warmup": max(1, round(config["warmup"] * steps))}
            rule["learning_rate"] = dial.rate(depth)
            told = size | {"flops": 6 * size["parameters"] * count, "epochs": count / text["train"]["tokens"]}
            for seed in config["seeds"]:
                run = {**common, "data": {**data, "seed": seed}, "optimizer": rule, "steps": steps, "seed": seed}
                at = {"depth": depth, "tokens": count, "seed": seed}
                settings = {**told, "model": model, "optimizer": rule, "steps": steps}
                found.append(Cell(at, settings, partial(run_cell, complete(run), folder)))
    return sorted(found, key=lambda cell: cell.settings["flops"])


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells and prints what all gave."""
    compilation.use_cache()
    check_same(config, workdir)
    text = prepare_text(config["text"], workdir)
    told = (f"{split} {held['tokens']:,} tokens of {held['bytes']:,} bytes" for split, held in list(text.items())[1:])
    console.print("; ".join(told), soft_wrap=True)
    (workdir / "cells").mkdir(exist_ok=True)
    results = sweep(cells(config, workdir, text), workdir / "cells", console)
    header = ["depth", "parameters", "tokens", "seed", "FLOPs", "epochs", "held-out loss", "CPU time, s"]
    rows = [
        [
            r["depth"],
            f"{r['settings']['parameters']:,}",
            f"{r['tokens']:,}",
            r["seed"],
            f"{r['settings']['flops']:.2e}",
            f"{r['settings']['epochs']:.2f}",
            f"{r['loss']:.4f}",
            f"{r['cpu_seconds']:.0f}",
        ]
        for r in results
    ]
    spent = sum(r["cpu_seconds"] for r in results) / 60
    print_table(f"{len(results)} trainings, {spent:.0f} minutes of processor time", header, rows, console=console)


if __name__ == "__main__":
    command.run(work, config="configs/scaling_sweep.py", workdir="runs/scaling")
