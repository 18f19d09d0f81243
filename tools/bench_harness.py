"""The LM evaluation harness on our backend against its own torch backend: the same weights, tasks and batch size.

    python tools/bench_harness.py [--rows 48] [--batch 16] [--rounds 3]

`vs_torch_backend`: seconds of its torch backend over ours for sst2, piqa and shakespeare (experiments/harness_tasks) on
stories260K, nothing remembered, alternating in one process; compilation is not counted. The tables are compared first.
"""

import argparse
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import bench_common as common

from experiments.cells import data_folder
from experiments.harness import ROOT, evaluate, read_tasks
from research.core.compilation import use_cache
from research.data.llama2c_huggingface import as_huggingface
from research.data.llama2c_tokenizer import Llama2cTokenizer
from research.evaluation.harness import as_lm
from research.interop import save_pretrained
from research.interop.llama2c import load_llama2c
from research.models import build

TASKS = ("sst2", "piqa", "shakespeare")


def shown(results: dict[str, Any]) -> dict[str, str]:
    """Every number as the harness prints it."""
    return {
        f"{task} {name}": f"{value:.4f}"
        for task, found in results["results"].items()
        for name, value in found.items()
        if isinstance(value, float)
    }


def main() -> None:
    """Compares the tables, then the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=48, help="of each task")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    from lm_eval.models.huggingface import HFLM

    logging.disable(logging.WARNING)
    use_cache()
    data = data_folder()
    config, params = load_llama2c(data / "stories260K" / "checkpoint_v1.bin")
    config = config.replace(family="llama")
    tokenizer = as_huggingface(Llama2cTokenizer.load(data / "stories260K" / "tokenizer.bin"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        save_pretrained(folder, config, params)
        tokenizer.save(folder)
        tasks = read_tasks(TASKS, ROOT / "experiments" / "harness_tasks", data, Path(scratch) / "datasets")
        theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=args.batch)
        found: dict[str, dict[str, str]] = {}

        def run(name: str, lm: Any) -> None:
            results = evaluate(lm, tasks, limit=args.rows, bootstrap_iters=0, log_samples=False)
            found[name] = shown(results)

        runs = {
            # A fresh one each time: it remembers answers.
            "ours": lambda: run("ours", as_lm(build(config), params, tokenizer, batch_size=args.batch)),
            "torch": lambda: run("torch", theirs),
        }
        common.settings(model="stories260K", tasks=", ".join(TASKS), rows=args.rows, batch=args.batch)
        seconds = common.alternate(runs, args.rounds)
    for name, value in found["ours"].items():
        print(f"{name}: ours {value}, torch {found['torch'][name]}")
    if found["ours"] != found["torch"]:
        raise SystemExit("the two backends disagree")
    for name, value in common.medians(seconds).items():
        print(f"{name}: median {value:.2f} s")
    common.finish(vs_torch_backend=common.ratio(seconds, "ours", "torch"))


if __name__ == "__main__":
    main()
