"""The main job: tokenizer, pre-training, compression, tuning, answers, evaluation, small forms, preferences, a report.

    python -m experiments.lifecycle --config=configs/lifecycle.py [--workdir=runs/lifecycle]

Stages are in experiments/stages/; each is done once and remembered under a hash of its config, inputs and code, so an
interrupted job goes on where it was, and a changed setting repeats only what depends on it. On a CPU a second process
takes stages that are ready, because one of them seldom keeps all cores busy.
"""

import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

# Also as `python experiments/lifecycle.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.smaller import check_form
from experiments.stages import (
    STAGES,
    Done,
    learning,
    memory,
    pairs,
    policies,
    ppo,
    quantize,
    rag,
    reasoning,
    run_all,
    scaling,
    smaller,
)
from experiments.stages.helper import helping
from experiments.stages.tune import NAMES
from research import weights
from research.core import compilation
from research.evaluation.card_page import interval
from research.report import print_table, seconds
from research.scaling import laws


def summary(done: Mapping[str, Done], console: Console) -> None:
    """What came out, in small tables."""
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
    print_table(*tuned(done), console=console)
    shots = done["shots"].result
    print_table(
        f"Right choices in {shots['questions']} questions, by examples in the prompt (chance {shots['chance']:.2f})",
        ["", *(f"k = {k}" for k in next(iter(shots["scores"].values())))],
        [[name, *(interval(found["acc"]) for found in by_k.values())] for name, by_k in shots["scores"].items()],
        console=console,
    )
    small = smaller.joined({name: stage.result for name, stage in done.items()})
    print_table("Fewer bits, fewer numbers", *quantize.rows(small), console=console)
    print_table("Memory account", *memory.rows(done["memory"].result), console=console)
    print_table("On scaling laws", *scaling.rows(done["scaling"].result), console=console)
    print_table("Before and after PPO and DPO", *policies.rows(done["policies"].result), console=console)
    print_table(*rag.rows(done["rag"].result), console=console)
    print_table("Programs and actions, right answers", *reasoning.rows(done["reasoning"].result), console=console)
    times = [[name, seconds(stage.seconds), seconds(stage.worked)] for name, stage in done.items()]
    print_table("Time", ["stage", "took", "processor time"], times, console=console)


def tuned(done: Mapping[str, Done]) -> tuple[str, list[str], list[list[str]]]:
    """Title, header and rows: what each way to tune learns, costs and forgets."""
    scores, bits = done["answers"].result["scores"], done["forgetting"].result["bits_per_byte"]
    rows = []
    for stage, name in NAMES.items():
        result = done[stage].result
        trained, worked = (
            ("0", "") if stage == "pretrain" else (f"{result['parameters']:,}", seconds(done[stage].worked))
        )
        rows.append([name, trained, worked, f"{scores[name]['all']['rougeL'][1]:.3f}", f"{bits[stage]:.3f}"])
    return "Ways to tune", ["", "trainable", "processor time", "ROUGE-L of answers", "bits per byte of documents"], rows


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError, before any work, for settings that a later stage would refuse."""
    learning.check(config, ("pretrain", "tune", "lora", "prompt", "reward", "dpo"))
    for form in config["quantize"]["forms"].values():
        weights.parse(form["recipe"])
    for name in ("prune", "distil"):
        for form, given in config[name]["forms"].items():
            check_form(form, given)
    ppo.parts(config["ppo"])
    reasoning.check(config["reasoning"])
    for law in config["scaling"]["laws"]:
        laws.known(law)
    if config["processes"] not in (1, 2):
        raise ValueError(f"the stages are done by 1 or 2 processes, not by {config['processes']}")
    asked, room = pairs.row_length(config["pairs"]), config["model"]["max_length"]
    if asked > room:
        raise ValueError(f"questions with answers of {asked} tokens (pairs) do not fit the model's max_length {room}")


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """All stages, the report, and a summary."""
    start = time.monotonic()
    compilation.use_cache()
    check(config)
    both = config["processes"] == 2 and jax.default_backend() == "cpu"  # an accelerator belongs to one process
    with helping(sys.argv[1:], workdir) if both else nullcontext():
        done = run_all(STAGES, config, workdir, console=console)
    report = workdir / "report.html"
    shutil.copyfile(done["page"].folder / "report.html", report)
    summary(done, console)
    console.print(f"Done in {seconds(time.monotonic() - start)}. The report: [bold]{report}[/]", soft_wrap=True)
    opened = f"configs/playground.py:{done['site'].folder} --config.runs={workdir}"
    console.print("To play with what was made, ask its documents, rank its answers and see its runs (extra `serve`):")
    console.print(f"  python -m experiments.playground --config={opened}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    command.run(work, config="configs/lifecycle.py", workdir="runs/lifecycle")
