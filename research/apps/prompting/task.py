"""Questions as text: one item, the task it belongs to, and what a model made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
      id: unique within its task, such as "test/17"; never two rows of one file with the same.
      question: what is shown, up to where the answer begins; no blank at its end.
      choices: continuations to compare by likelihood, each with its leading blank; empty: the answer is written freely.
      gold: which choices are right (one, except where a task has several).
      answers: texts that count as right; the first one is what an example in a prompt shows.
      info: whatever else the task's metrics need (a group, a passage's number, a program's tests), JSON values.
    """

    id: str
    question: str
    choices: tuple[str, ...] = ()
    gold: tuple[int, ...] = ()
    answers: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def solved(self) -> str:
        """The question with its answer behind it, as an example in a prompt shows it.

        Raises:
          ValueError: the item has no known answer.
        """
        if self.choices and self.gold:
            return self.question + self.choices[self.gold[0]]
        if self.answers:
            return f"{self.question} {self.answers[0]}"
        raise ValueError(f"item {self.id!r} has no known answer to show")


@dataclass(frozen=True)
class Task:
    """Items with what it takes to ask and to score them.

    Attributes:
      name: such as "mmlu/astronomy".
      items: what is asked. pool: what examples in prompts are drawn from; never the asked item itself.
      metrics: names of `research.evaluation.benchmarks.METRICS`; the first is the one that tables show.
      description: stands in front of everything. separator: between examples.
      preamble: examples that were published as one text, used instead of drawn ones.
      by: how choices are compared ("sum", "token", "byte", "unconditional"); neutral: the context of the last one.
      extract: a rule of `research.apps.prompting.extract` that finds the answer in a generated text.
      stop, max_new_tokens: end of a generated answer.
    """

    name: str
    items: Sequence[Item]
    metrics: tuple[str, ...]
    pool: Sequence[Item] = ()
    description: str = ""
    separator: str = "\n\n"
    preamble: str = ""
    by: str = "sum"
    neutral: str = ""
    extract: str = "whole"
    stop: tuple[str, ...] = ("\n",)
    max_new_tokens: int = 32


@dataclass(frozen=True)
class Outcome:
    """What a model made of one item.

    Attributes:
      item: its id.
      prediction: number of the chosen choice, or the text that was extracted; None: no answer could be read.
      text: all that was generated. scores: one per choice, the likeliest having the largest.
    """

    item: str
    prediction: int | str | None
    text: str = ""
    scores: tuple[float, ...] = ()
