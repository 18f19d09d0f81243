"""Stage 11: the same questions without and with examples in the prompt, put to the pre-trained and the tuned model.

Each question about a held-out function comes with its right answer among right answers to others.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage, read_lines
from experiments.stages.tune import NAMES, question
from research.apps.prompting import Item, Task, shots
from research.evaluation import ask, bootstrap
from research.evaluation.benchmarks import METRICS


def chosen(source: Path, settings: Mapping[str, Any], count: Callable[[str], int], window: int) -> list[Task]:
    """One task per kind of question: held-out ones that leave room for examples, training ones that are short."""
    sides = {}
    for side, part, most in (
        ("test", "question", settings["questions_per_task"]),
        ("train", "example", settings["pool"]),
    ):
        records = read_lines(source / f"{side}_tasks.jsonl")
        room = settings[part] * window
        for kind in sorted({r["task"] for r in records}):
            made = items([r for r in records if r["task"] == kind], side, settings["wrong"], settings["seed"])
            short = [i for i in made if max(count(i.question + choice) for choice in i.choices) <= room]
            sides[side, kind] = [short[n * len(short) // most] for n in range(most)] if len(short) > most else short
    return [
        Task(f"docstrings/{kind}", found, ("acc",), pool=sides.get(("train", kind), []))
        for (side, kind), found in sides.items()
        if side == "test" and found
    ]


def items(records: Sequence[Mapping[str, Any]], side: str, wrong: int, seed: int) -> list[Item]:
    """Questions of one kind with the right completion somewhere among `wrong` others."""
    generator = np.random.default_rng(seed)
    texts = sorted({r["completion"] for r in records})
    found = []
    for number, record in enumerate(records):
        drawn = [texts[i] for i in generator.permutation(len(texts))[: wrong + 1]]
        drawn = [text for text in drawn if text != record["completion"]][:wrong]
        gold = int(generator.integers(len(drawn) + 1))
        choices = (*drawn[:gold], record["completion"], *drawn[gold:])
        found.append(Item(f"{side}/{number}", question(record["prompt"]), choices, (gold,)))
    return found


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """{model: {k: {"acc": [low, mean, high] over all questions, "used": examples that fitted, on average}}}.

    Raises:
      ValueError: no question is short enough.
    """
    del folder
    settings = config["shots"]
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    scores: dict[str, dict[str, Any]] = {}
    tasks: list[Task] = []
    for stage in ("pretrain", "tune"):
        params = learning.load_weights(inputs[stage], model)
        count, window = ask.count(model, params, pieces)
        tasks = tasks or chosen(inputs["documents"].folder, settings, count, window)
        if not tasks:
            raise ValueError(f"no question fits into {settings['question']} of the window of {window} tokens")
        scores[NAMES[stage]] = {}
        for k in settings["ks"]:
            right, used = [], []
            for task in tasks:
                prompts = [
                    shots.build(
                        task, item, shots.choose(task, item, min(k, len(task.pool)), how=settings["how"]),
                        count=count, window=window,
                    )
                    for item in task.items
                ]  # fmt: skip
                asked = [ask.Asked(item, prompt.text) for item, prompt in zip(task.items, prompts, strict=True)]
                outcomes = ask.choose(model, params, pieces, task, asked, batch_size=settings["batch_size"])
                right.append(METRICS["acc"].rows(task, outcomes))
                used += [prompt.used for prompt in prompts]
            found = bootstrap(np.concatenate(right))
            scores[NAMES[stage]][str(k)] = {"acc": list(found), "used": float(np.mean(used))}
    questions = sum(len(task.items) for task in tasks)
    return {"questions": questions, "chance": 1 / (settings["wrong"] + 1), "scores": scores}


STAGE = Stage(
    name="shots",
    title="Examples in the prompt: none against several, before and after tuning",
    run=run,
    needs=("documents", "tokenizer", "pretrain", "tune"),
    reads=("model", "shots"),
)
