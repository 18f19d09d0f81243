"""Stage 17: sampled answers to questions about functions, ranked by a program that knows the true one, as pairs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rouge_score import rouge_scorer

from experiments.stages import learning, tokenizer
from experiments.stages.answers import per_task
from experiments.stages.stage import Done, Stage, read_lines, write_lines
from experiments.stages.tune import question
from research.core.types import Params
from research.data.preference import pairs_of_ranking
from research.data.preference_rows import PreferenceRows, encode_preferences
from research.decoding import prepare
from research.models import Model
from research.recipes.rollouts import Rollout, Writer
from research.report import Steps


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Writes train.jsonl and test.jsonl: of one question a better answer (chosen) and a worse one (rejected)."""
    settings, source = config["pairs"], inputs["documents"].folder
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    tuned = prepare(model, learning.load_weights(inputs["tune"], model))
    writer, result = writer_of(model, pieces, settings), {}
    for seed, (side, count) in enumerate((("train", settings["per_task"]), ("test", settings["held_out_per_task"]))):
        asked = questions(source, side, pieces, settings["prompt_length"], count)
        prompts = [prompt for prompt in coded(asked, pieces) for _ in range(settings["samples"])]
        answers = []
        with Steps(f"sampling {side}", len(prompts), unit="answers") as bar:
            for rollout, new in rollouts(writer, tuned, prompts, settings["batch_size"], seed):
                answers += rollout.answers[:new]
                bar.advance(new)
        grouped = [answers[i : i + settings["samples"]] for i in range(0, len(answers), settings["samples"])]
        ranked = [pair for record, mine in zip(asked, grouped, strict=True) for pair in ranking(record, mine)]
        write_lines(folder / f"{side}.jsonl", ranked)
        scores = gold([r["completion"] for r in asked for _ in range(settings["samples"])], answers)
        result[side] = {"questions": len(asked), "pairs": len(ranked), "gold": float(np.mean(scores))}
    return result


def questions(source: Path, side: str, pieces: Any, length: int, count: int) -> list[dict[str, Any]]:
    """Up to `count` tasks of each kind whose question has at most `length` tokens."""
    records = read_lines(source / f"{side}_tasks.jsonl")
    short = [r for r, ids in zip(records, coded(records, pieces), strict=True) if len(ids) <= length]
    return per_task(short, count)


def coded(records: Sequence[Mapping[str, Any]], pieces: Any) -> list[list[int]]:
    """Their questions as token ids."""
    return [pieces.encode(question(r["prompt"]), bos=True) for r in records]


def writer_of(model: Model, pieces: Any, settings: Mapping[str, Any]) -> Writer:
    """What samples answers with the settings `config["pairs"]`."""
    return Writer(model, pieces, settings["prompt_length"], settings["new_tokens"], (pieces.eos_id,))


def rollouts(
    writer: Writer, params: Params, prompts: Sequence[Sequence[int]], batch_size: int, seed: int
) -> Iterator[tuple[Rollout, int]]:
    """Sampled answers to all prompts in full batches, each with the number of its rows that are new."""
    key = jax.random.key(seed)
    for first in range(0, len(prompts), batch_size):
        some = list(prompts[first : first + batch_size])
        # The last batch repeats a prompt rather than compile another shape.
        padded = some + [some[-1]] * (batch_size - len(some))
        yield writer(params, padded, jax.random.fold_in(key, first)), len(some)


def gold(right: Sequence[str], answers: Sequence[str]) -> list[float]:
    """The program that tells the better answer: ROUGE-L F₁ against the true one."""
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    return [scorer.score(r, a)["rougeL"].fmeasure for r, a in zip(right, answers, strict=True)]


def ranking(record: Mapping[str, Any], answers: Sequence[str]) -> list[dict[str, Any]]:
    """All pairs of the sampled answers and the true one, which stands above all; ties are left out.

    With the true answer a question teaches something even when no sample is right; `sampled` marks pairs without it.
    """
    right = record["completion"]
    others = [text for text in dict.fromkeys(answer.strip() for answer in answers) if text and text != right]
    if not others:
        return []
    ranks = [-2.0, *(-score for score in gold([right] * len(others), others))]
    pairs = pairs_of_ranking(question(record["prompt"]), [right, *others], ranks)
    return [pair._asdict() | {"sampled": pair.chosen != right} for pair in pairs if pair.preferred == 1]


def rows(done: Done, side: str, pieces: Any, length: int) -> PreferenceRows:
    """The pairs of a side as rows of at most `length` tokens; longer ones are left out."""
    pairs = read_lines(done.folder / f"{side}.jsonl")
    fitting = encode_preferences(pairs, pieces, length=length, long="drop", boundary="separate")
    return PreferenceRows(fitting, length, pad_id=pieces.pad_id)


def row_length(settings: Mapping[str, Any]) -> int:
    """Tokens of a question with its answer, by the settings `config["pairs"]`."""
    return settings["prompt_length"] + settings["new_tokens"]


STAGE = Stage(
    name="pairs",
    title="Preferences: sampled answers, ranked by a program",
    run=run,
    needs=("documents", "tokenizer", "tune"),
    reads=("model", "pairs"),
    makes=("train.jsonl", "test.jsonl"),
)
