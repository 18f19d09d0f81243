"""Stage 8: answers to questions about held-out functions, before and after tuning, beside answers without a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.answering import greedy
from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage, read_lines
from experiments.stages.tune import NAMES, question
from research import weights
from research.evaluation import exact_match, most_common, nearest, rouge
from research.report import Steps

ROUGE = ("rouge1", "rouge2", "rougeL")


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Scores {method: {task: {metric: [low, mean, high]}}} and a few answers to look at."""
    del folder
    settings, source = config["answers"], inputs["documents"].folder
    known = read_lines(source / "train_tasks.jsonl")
    asked = per_task(read_lines(source / "test_tasks.jsonl"), settings["questions_per_task"])
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    room = model.config.max_length - settings["max_new_tokens"] - inputs["prompt"].result["virtual"]
    asked = [r for r in asked if len(pieces.encode(question(r["prompt"]), bos=True)) <= room]
    given = {
        "most common answer": [most_common([k["completion"] for k in known if k["task"] == r["task"]]) for r in asked],
        "nearest training example": nearest_answers(known, asked),
    }
    for stage, name in NAMES.items():
        tuned = weights.merge(learning.load_weights(inputs[stage], model))
        given[name] = model_answers(model, tuned, pieces, asked, settings, f"answers {name}")
    return {
        "questions": len(asked),
        "scores": {method: scores(asked, answers) for method, answers in given.items()},
        "examples": [
            {"task": r["task"], "prompt": r["prompt"], "reference": r["completion"]}
            | {method: answers[i] for method, answers in given.items()}
            for i, r in enumerate(asked)
            if i % max(1, len(asked) // settings["shown"]) == 0
        ],
    }


def per_task(records: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Up to `count` records of every task, spread evenly over all there are."""
    chosen = []
    for task in sorted({r["task"] for r in records}):
        mine = [r for r in records if r["task"] == task]
        chosen += [mine[i * len(mine) // min(count, len(mine))] for i in range(min(count, len(mine)))]
    return chosen


def nearest_answers(known: Sequence[Mapping[str, Any]], asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each question the answer of the most similar training question of the same task."""
    answers = [""] * len(asked)
    for task in {r["task"] for r in asked}:
        mine = [k for k in known if k["task"] == task]
        where = [i for i, r in enumerate(asked) if r["task"] == task]
        prompts, completions = [k["prompt"] for k in mine], [k["completion"] for k in mine]
        found = nearest(prompts, completions, [asked[i]["prompt"] for i in where])
        for i, answer in zip(where, found, strict=True):
            answers[i] = answer
    return answers


def model_answers(
    model: Any, params: Any, pieces: Any, asked: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], title: str
) -> list[str]:
    """Greedy answers, one line each."""
    prompts = [pieces.encode(question(r["prompt"]), bos=True) for r in asked]
    with Steps(title, len(asked), unit="answers") as bar:
        found = greedy(
            model, params, pieces, prompts, settings["max_new_tokens"], settings["batch_size"], done=bar.advance
        )
    return [text.split("\n", 1)[0].strip() for text in found]


def scores(asked: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Exact match and ROUGE F₁ with intervals, per task and over all."""
    found = {}
    for task in ["all", *sorted({r["task"] for r in asked})]:
        where = [i for i, r in enumerate(asked) if task in ("all", r["task"])]
        mine, right = [answers[i] for i in where], [asked[i]["completion"] for i in where]
        counted = rouge(mine, right, kinds=ROUGE)
        found[task] = {"exact match": list(exact_match(mine, right))}
        found[task] |= {kind: list(counted[kind]["fmeasure"]) for kind in ROUGE}
    return found


STAGE = Stage(
    name="answers",
    title="Answers about held-out functions, before and after tuning",
    run=run,
    needs=("documents", "tokenizer", *NAMES),
    reads=("model", "answers"),
)
