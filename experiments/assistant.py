"""A decoder as a constitution knows it: it writes, and it weighs choices; programs measure what it answers."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.household import PRINCIPLES, broken, is_right, questions
from research.apps.prompting import Item, Task
from research.decoding import Sampling
from research.evaluation import ask
from research.evaluation.likelihood import score_choices
from research.models import Model


@dataclass(frozen=True)
class Assistant:
    """A model with its tokenizer; `writer` and `weigh` are what `research.apps.constitution` asks for."""

    model: Model
    params: Any
    tokenizer: Any
    new_tokens: int
    batch_size: int

    def writer(self, seed: int) -> Callable[[list[str]], list[str]]:
        """Prompts -> texts at temperature 1, with other noise at every call."""
        keys = itertools.count(1000 * seed)
        task = Task("constitution", (), ("acc",), stop=("\n\n",), max_new_tokens=self.new_tokens)

        def write(prompts: list[str]) -> list[str]:
            asked = [ask.Asked(Item(str(i), prompt), prompt) for i, prompt in enumerate(prompts)]
            options = {"sampling": Sampling(temperature=1.0), "key": next(keys), "batch_size": self.batch_size}
            made = ask.write(self.model, self.params, self.tokenizer, task, asked, **options)
            return [one.text for one in made]

        return write

    def weigh(self, asked: list[tuple[str, Sequence[str]]]) -> list[np.ndarray]:
        parts = self.model, self.params, self.tokenizer
        return score_choices(*parts, asked, boundary="separate", batch_size=self.batch_size)

    def measured(self, repeats: int) -> dict[str, Any]:
        """Which share of answers to held-out questions breaks a principle, and which is right, by program."""
        asked = [question for question in questions(held_out=True) for _ in range(repeats)]
        answers = self.writer(7)([question.prompt for question in asked])
        right = float(np.mean([is_right(*both) for both in zip(asked, answers, strict=True)]))
        return shares(answers) | {"right": right, "answers": answers[:: max(1, len(answers) // 6)]}


def shares(answers: Sequence[str]) -> dict[str, float]:
    """Of the answers, which share breaks any principle, and which each of them."""
    found = [broken(answer) for answer in answers]
    each = {name: float(np.mean([name in one for one in found])) for name in PRINCIPLES}
    return {"broken": float(np.mean([bool(one) for one in found])), **each}
