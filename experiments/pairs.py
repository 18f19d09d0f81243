"""Pairs of answers to one question, of which a judge or people prefer one: files read, and split by question."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from research.evaluation.judge.alpaca_eval import read_annotations

TRAIN, HELD_OUT = "train", "held out"
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


class Pair(NamedTuple):
    """Two answers and which of them is preferred: "A", "B" or "tie"."""

    question: str
    answer_a: str
    answer_b: str
    verdict: str


def annotations(path: str | Path) -> list[Pair]:
    """AlpacaEval's annotations: A is the baseline's answer."""
    return [Pair(**row) for row in read_annotations(path)]


def dialogues(path: str | Path) -> list[Pair]:
    """hh-rlhf: the last answers of two dialogues that are equal up to there, and the question before them.

    Whether the chosen answer is A or B is decided by the text, so that the place tells nothing. Dialogues that differ
    before the last answer are left out.

    Raises:
      ValueError: a line that holds no two dialogues; names file and line.
    """
    pairs = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            before, chosen = row["chosen"].rsplit(_ASSISTANT, 1)
            same, rejected = row["rejected"].rsplit(_ASSISTANT, 1)
        except (KeyError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path}:{number}: expected chosen and rejected dialogues with an answer: {error}"
            ) from None
        if before == same:
            question, answers = before.rsplit(_HUMAN, 1)[-1].strip(), [chosen.strip(), rejected.strip()]
            swapped = zlib.crc32(line.encode()) % 2
            pairs.append(Pair(question, *(answers[::-1] if swapped else answers), "B" if swapped else "A"))
    return pairs


def split(pairs: Sequence[Pair], share: float = 0.25) -> dict[str, list[Pair]]:
    """{TRAIN: ..., HELD_OUT: about `share` of them}; pairs of one question are never on both sides."""
    held_out = [zlib.crc32(pair.question.encode()) % 1000 < 1000 * share for pair in pairs]
    return {
        TRAIN: [pair for pair, out in zip(pairs, held_out, strict=True) if not out],
        HELD_OUT: [pair for pair, out in zip(pairs, held_out, strict=True) if out],
    }


SETS = {
    "alpaca_eval": (annotations, "alpaca_eval_gpt4/alpaca-7b.annotations.json"),
    "hh_rlhf": (dialogues, "hh_rlhf_harmless/harmless-base.dev.jsonl"),
}
