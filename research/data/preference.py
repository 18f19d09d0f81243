"""Preferences as they are found in files: two answers to a prompt, and which of them is better.

Shapes (columns) that are read as they are: `prompt`, `chosen`, `rejected` as texts or as chats; the same with
`instruction` and `input` for the prompt (Alpaca), or with `messages` or `conversations`; `chosen` and `rejected` alone,
as whole dialogues that differ in the last answer (hh-rlhf) or as chats; AlpacaEval's `instruction`, `output_1`,
`output_2`, `preference`.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from .chat import as_messages
from .templates import alpaca_prompt

ASSISTANT = "\n\nAssistant:"  # what an answer follows in the dialogues of hh-rlhf

Prompt = str | list[dict]


class UnusablePairError(ValueError):
    """What says nothing about which answer is better: equal answers, an empty one, or answers to different prompts."""


class Preference(NamedTuple):
    """Two answers to a prompt, which is a text or a chat; `preferred` is how sure it is that the chosen one is better.

    1 is what files without ties say, 0.5 a tie, and a share of judges may be anything between; below 0.5 the answer
    called rejected is the better one.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    preferred: float = 1.0

    def checked(self) -> "Preference":
        """Itself.

        Raises:
          ValueError: an answer that is no text or empty, or two that are equal: nothing is to be learned from them.
        """
        for name in ("chosen", "rejected"):
            answer = getattr(self, name)
            if not isinstance(answer, str):
                raise ValueError(f"the {name} answer must be a text, got {type(answer).__name__}")
            if not answer.strip():
                raise UnusablePairError(f"the {name} answer is empty")
        if self.chosen == self.rejected:
            raise UnusablePairError(f"chosen and rejected are equal: {self.chosen[:60]!r}")
        if not 0 <= self.preferred <= 1:
            raise ValueError(f"preferred must be in 0 .. 1, given {self.preferred}")
        return self


def as_preference(example: Mapping) -> Preference:
    """One example of any known shape; see the top of this file. A column `preferred` says how sure it is.

    Raises:
      ValueError: other columns, dialogues that differ before their last answer, an empty answer, or equal ones.
    """
    return _read(example).checked()


def _read(example: Mapping) -> Preference:
    if {"output_1", "output_2", "preference"} <= set(example):
        return _alpaca_eval(example)
    if not is_pair(example):
        raise ValueError(
            f"unknown columns {sorted(example)}; expected chosen and rejected with prompt, instruction, messages or "
            "conversations or without, or AlpacaEval's output_1, output_2 and preference"
        )
    chosen, rejected = example["chosen"], example["rejected"]
    sure = float(example.get("preferred", 1.0))
    prompt = prompt_of(example)
    if prompt is not None:
        return Preference(prompt, as_answer(chosen), as_answer(rejected), sure)
    return (_dialogues if isinstance(chosen, str) else _chats)(chosen, rejected, sure)


def is_pair(example: Mapping) -> bool:
    """Whether an example has the columns of two answers."""
    return {"chosen", "rejected"} <= set(example) or {"output_1", "output_2", "preference"} <= set(example)


def prompt_of(example: Mapping) -> Prompt | None:
    """The prompt of an example that has one in a column of its own (or in several, as Alpaca does)."""
    if "prompt" in example:
        prompt = example["prompt"]
        return prompt if isinstance(prompt, str) else as_messages({"messages": prompt})
    if "instruction" in example:
        return alpaca_prompt(example)
    return as_messages(example) if "messages" in example or "conversations" in example else None


def asked(example: Mapping) -> str:
    """What an example's answers are to, so that all of them are on one side of a split; else all of the example."""
    try:
        prompt = _read(example).prompt if is_pair(example) else prompt_of(example)
        if isinstance(prompt, list) and prompt[-1]["role"] == "assistant":
            prompt = prompt[:-1]  # a chat whose last message is the answer
    except (ValueError, LookupError, TypeError):  # what is wrong with it is said where it is encoded
        prompt = None
    return str(sorted(example.items()) if prompt is None else prompt)


def pairs_of_ranking(prompt: Prompt, answers: Sequence[str], ranks: Sequence[float]) -> list[Preference]:
    """All pairs of a ranking, the better one first; equal ranks are a tie, equal answers make no pair.

    Args:
      answers: [R]. ranks: [R], 1 for the best.

    Raises:
      ValueError: another number of ranks than of answers, or fewer than two answers that differ.
    """
    if len(answers) != len(ranks):
        raise ValueError(f"{len(answers)} answers but {len(ranks)} ranks")
    pairs = []
    for i, j in combinations(range(len(answers)), 2):
        if answers[i] != answers[j]:
            first, second = (j, i) if ranks[j] < ranks[i] else (i, j)
            sure = 0.5 if ranks[i] == ranks[j] else 1.0
            pairs.append(Preference(prompt, answers[first], answers[second], sure).checked())
    if not pairs:
        raise ValueError(f"a ranking needs at least 2 answers that differ, given {len(answers)}")
    return pairs


def as_answer(given: str | Mapping | Sequence[Mapping]) -> str:
    """An answer as a text: given as one, as the assistant's message, or as a chat of that message alone."""
    if isinstance(given, Mapping):
        given = [given]
    if isinstance(given, str) or not isinstance(given, Sequence):
        return given
    messages = as_messages({"conversations" if given and "from" in given[0] else "messages": given})
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise ValueError(f"an answer is one message of the assistant; roles are {[m['role'] for m in messages]}")
    return messages[0]["content"]


def _dialogues(chosen: str, rejected: str, sure: float) -> Preference:
    before, mark, answer = chosen.rpartition(ASSISTANT)
    same, _, other = rejected.rpartition(ASSISTANT)
    if not mark or before != same:
        raise UnusablePairError(
            f"chosen and rejected without a prompt must be dialogues that are equal up to the last {ASSISTANT!r}; "
            f"they begin {chosen[:40]!r} and {rejected[:40]!r}"
        )
    return Preference(before + mark, answer, other, sure)


def _chats(chosen: Sequence[Mapping], rejected: Sequence[Mapping], sure: float) -> Preference:
    ours, theirs = as_messages({"messages": chosen}), as_messages({"messages": rejected})
    if ours[:-1] != theirs[:-1] or not ours[:-1]:
        raise UnusablePairError(
            "chosen and rejected without a prompt must be chats that are equal up to their last message"
        )
    return Preference(ours[:-1], as_answer(ours[-1:]), as_answer(theirs[-1:]), sure)


def _alpaca_eval(example: Mapping) -> Preference:
    """`preference` is 1 or 2, the better output, or 0 or 1.5 for a tie."""
    given = example["preference"]
    outputs = example["output_1"], example["output_2"]
    prompt = alpaca_prompt(example)
    if given in (0, 1.5):
        return Preference(prompt, *outputs, 0.5)
    if given is None or not 1 <= given <= 2:
        raise ValueError(f"preference must be 1, 2, a number between them, or 0 for a tie; given {given!r}")
    better, worse = outputs if given < 1.5 else outputs[::-1]
    return Preference(prompt, better, worse, 2.0 - given if given < 1.5 else given - 1.0)
