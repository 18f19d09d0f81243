"""An evaluation card of each model, and all of them side by side on one page.

    python -m experiments.card --config=configs/card.py --workdir=runs/card
    python -m experiments.card --config=configs/card.py --config.models="('runs/mine','path/to/another')"

A model's card is one JSON file in the folder: started again, only what is missing is measured.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

# Also as `python experiments/card.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.answering import greedy
from experiments.cells import Cell, data_folder, sweep
from experiments.loading import Loaded, load
from experiments.pairs import HELD_OUT, dialogues, split
from research.apps.prompting import Task
from research.core import compilation, tree
from research.evaluation.benchmarks import load as load_benchmark
from research.evaluation.card import Card, asker, measure, toxicity_of
from research.evaluation.card_page import interval, page
from research.evaluation.counterfactual import GENDERS, regender, rename
from research.evaluation.efficiency import efficiency
from research.evaluation.text_scorer import TextScorer
from research.report import print_table
from research.training.checkpoint import git_hash


def toxicity(loaded: Loaded, settings: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Continuations of held-out questions of people who provoke, and of the same about women and men."""
    scorer = TextScorer.load(settings["scorer"])
    # The questions that the scorer's own held-out answers were given to: it has seen none of them.
    held_out = split(dialogues(root / "hh_rlhf_harmless" / "harmless-base.dev.jsonl"))[HELD_OUT]
    asked = list(dict.fromkeys(pair.question for pair in held_out))[: settings["prompts"]]
    about = {to: [regender(rename(text, gender=to), to) for text in asked] for to in GENDERS}
    people = [i for i, texts in enumerate(zip(*about.values(), strict=True)) if len(set(texts)) > 1]
    kinds = {"as asked": asked} | {to: [texts[i] for i in people] for to, texts in about.items()}
    room = loaded.model.config.max_length - settings["max_new_tokens"]
    written = {}
    for kind, texts in kinds.items():
        prompts = [loaded.tokenizer.encode(text, bos=loaded.tokenizer.bos_id is not None)[:room] for text in texts]
        prompts = [ids or [loaded.tokenizer.eos_id] for ids in prompts]
        answers = greedy(loaded.model, loaded.params, loaded.tokenizer, prompts, settings["max_new_tokens"], 16)
        written[kind] = list(zip(texts, answers, strict=True))
    return toxicity_of(scorer.probabilities, written, settings["threshold"]) | {"scorer": scorer.described}


def card_of(name: str, loaded: Loaded, tasks: Sequence[Task], config: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Everything about one model, as JSON values."""
    ask = asker(loaded.model, loaded.params, loaded.tokenizer, k=config["shots"], batch_size=config["batch_size"])
    card = measure(
        name,
        ask,
        tasks,
        names=config["names"],
        toxicity=toxicity(loaded, config["toxicity"], root) if config["toxicity"]["scorer"] else None,
        efficiency=efficiency(loaded.model, loaded.params, loaded.tokenizer, **config["speed"]),
        notes=[
            f"{config['shots']} examples in front of each question; at most {config['items_per_task']} items of a task"
        ],
    )
    return {"card": asdict(card)}


def few(task: Task, count: int) -> Task:
    """The task with `count` of its items, spread evenly over all; 0 keeps all."""
    n = len(task.items)
    return replace(task, items=[task.items[i * n // count] for i in range(count)]) if 0 < count < n else task


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Measures what is missing, writes the page and prints the main numbers."""
    compilation.use_cache()
    if not config["models"]:
        raise ValueError("no model to make a card of: give --config.models=\"('PATH',)\"")
    root = data_folder(config["data"])
    tasks = [few(task, config["items_per_task"]) for name in config["tasks"] for task in load_benchmark(name, root)]
    settings = {key: value for key, value in config.items() if key not in ("models", "data")}
    grid = []
    for path in config["models"]:
        name = "/".join(Path(path).parts[-2:])
        loaded = load(str(Path(path) if Path(path).exists() else root / path), None, config["policy"])
        made_of = {**settings, "weights": tree.fingerprint(loaded.params)}
        grid.append(Cell({"model": name}, made_of, partial(card_of, name, loaded, tasks, config, root)))
    cards = [Card(**result["card"]) for result in sweep(grid, workdir, console)]
    (workdir / "card.html").write_text(page(cards, footer=f"code {git_hash()}"), encoding="utf-8")
    rows = [
        [task, metric, *(interval(card.accuracy[task][metric]) for card in cards)]
        for task, metrics in cards[0].accuracy.items()
        for metric in metrics
    ]
    rows += [["worst of typos, case, spacing", "", *(interval(card.robustness["worst"]) for card in cards)]]
    print_table("Evaluation", ["task", "metric", *(card.model for card in cards)], rows, console=console)
    console.print(f"The card: [bold]{workdir / 'card.html'}[/]", soft_wrap=True)


if __name__ == "__main__":
    command.run(work, config="configs/card.py", workdir="runs/card")
