"""Judging one answer at a time on a scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from research.evaluation.text_metrics import Interval, bootstrap

from .ask import Judge, ask, shares
from .prompts import SINGLE, Form, filled
from .verdicts import read_rating


@dataclass(frozen=True)
class Ratings:
    """What a judge gave n answers.

    Attributes:
      ratings: [n], None where an answer of the judge was missing or could not be read.
      prompts, answers: [n], what was asked and said.
    """

    ratings: list[float | None]
    prompts: list[str]
    answers: list[str]

    def mean(self) -> Interval:
        """The mean of the ratings that there are."""
        return bootstrap(np.array([r for r in self.ratings if r is not None]))

    def summary(self) -> dict[str, float]:
        """The mean rating, and the shares of answers that failed."""
        return {"rating": self.mean().mean, **shares(self.answers, self.ratings)}


def rate(judge: Judge, examples: Sequence[Mapping[str, str]], form: Form = SINGLE) -> Ratings:
    """Asks for a rating of every example (question, answer, ...), all prompts in one call of the judge.

    Raises:
      ValueError: a form of the other kind, a missing field (names the example), or a judge that decides nothing.
    """
    prompts = filled(form, "single", examples)
    answers, found = ask(judge, prompts, read_rating)
    return Ratings(found, prompts, answers)
