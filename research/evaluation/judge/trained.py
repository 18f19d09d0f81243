"""A scorer of single answers as a judge of pairs: it never sees which answer stands first."""

from collections.abc import Callable, Sequence

import numpy as np

from .ask import Judge
from .prompts import Form

_CUT = "\x1e"  # stands in no text
TRAINED = Form("trained", "pairwise", "{question}" + _CUT + "{answer_a}" + _CUT + "{answer_b}")


def trained_judge(score: Callable[[Sequence[tuple[str, str]]], np.ndarray], *, margin: float = 0.0) -> Judge:
    """A judge for `compare(judge, examples, TRAINED)`: the answer with the higher score of (question, answer) wins.

    Both orders always agree, so there is no position bias to measure. Scores that differ by no more than `margin` are
    a tie; a prompt of another form gets an answer without a verdict.
    """

    def judge(prompts: list[str]) -> list[str]:
        parts = [prompt.split(_CUT) for prompt in prompts]
        good = [i for i, found in enumerate(parts) if len(found) == 3]
        answers = ["a trained judge needs prompts of the form TRAINED"] * len(prompts)
        if good:
            first, second = (score([(parts[i][0], parts[i][side]) for i in good]) for side in (1, 2))
            for i, difference in zip(good, first - second, strict=True):
                answers[i] = "[[C]]" if abs(difference) <= margin else "[[A]]" if difference > 0 else "[[B]]"
        return answers

    return judge
