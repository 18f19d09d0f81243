"""Answers of which each is just good or bad, without a pair: as they are found in files, and as rows for KTO.

Shapes (columns), with `label` true or false: `prompt` and `completion` as texts or as chats; `instruction`, `input` and
`output` (Alpaca); `messages` or `conversations`, whose last message is the answer. Pairs of any shape of
`data.preference` are read too: the better answer is good, the other one bad.

Each row holds the answer and, behind the same prompt, an answer to another prompt: the mismatched answers of which KTO
estimates how far the policy has moved. It is that of the nearest example before with another prompt, as in `trl`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .chat import as_messages
from .packing import Example, Row
from .preference import Prompt, UnusablePairError, as_answer, as_preference, is_pair, prompt_of
from .preference_rows import Coded, CodedPair, encode_answer, encode_seq2seq, encoded, fitted, fitted_pairs

AnyCoded = TypeVar("AnyCoded", Coded, CodedPair)


class Judged(NamedTuple):
    """An answer to a prompt, and whether it is good."""

    prompt: Prompt
    answer: str
    desirable: bool


def as_judged(example: Mapping) -> list[Judged]:
    """The one answer of an example, or both of a pair; see the top of this file.

    Raises:
      ValueError: other columns, a label that is none, an empty answer, a pair that is unusable or a tie.
    """
    if is_pair(example):
        pair = as_preference(example)
        if pair.preferred == 0.5:
            raise UnusablePairError("a tie has no better answer")
        return [
            Judged(pair.prompt, pair.chosen, pair.preferred > 0.5),
            Judged(pair.prompt, pair.rejected, pair.preferred < 0.5),
        ]
    if "label" not in example:
        raise ValueError(f"no column label; it has {sorted(example)}, expected an answer with its label or a pair")
    label = example["label"]
    if label not in (True, False):
        raise ValueError(f"label must be true (a good answer) or false, given {label!r}")
    prompt, answer = _answered(example)
    if not isinstance(answer, str):
        raise ValueError(f"the answer must be a text, got {type(answer).__name__}")
    if not answer.strip():
        raise UnusablePairError("the answer is empty")
    return [Judged(prompt, answer, bool(label))]


def _answered(example: Mapping) -> tuple[Prompt, Any]:
    column = next((name for name in ("completion", "output") if name in example), None)
    if column is not None and (prompt := prompt_of(example)) is not None:
        return prompt, as_answer(example[column])
    if "messages" in example or "conversations" in example:
        messages = as_messages(example)
        return messages[:-1], as_answer(messages[-1:])
    raise ValueError(
        f"unknown columns {sorted(example)}; expected label with prompt and completion, instruction and output, "
        "messages or conversations, or a pair"
    )


def encode_unpaired(
    examples: Iterable[Mapping],
    tokenizer: Any,
    *,
    length: int,
    long: str = "error",
    unusable: str = "error",
    template: str | None = None,
    boundary: str = "joint",
) -> list[Coded]:
    """All examples for a decoder: `chosen` is the answer, `rejected` the mismatched one, `preferred` 1 for a good one.

    The arguments are those of `preference_rows.encode_preferences`. A mismatched answer is cut where it is too long.

    Raises:
      ValueError: what is wrong with an example, by its number; all are to one prompt.
    """

    def encode(example: Mapping) -> list[Coded]:
        found = []
        for prompt, answer, desirable in as_judged(example):
            whole, n = encode_answer(prompt, answer, tokenizer, template=template, boundary=boundary)
            found.append(Coded(whole, whole, n, float(desirable), str(prompt)))
        return found

    coded = fitted(encoded(examples, encode, unusable), length, tokenizer, long=long, unusable=unusable)

    def beside(one: Coded, other: Coded) -> Coded:
        parts = zip(one.chosen, other.chosen, strict=True)
        both = (np.concatenate([mine[: one.prompt], theirs[other.prompt :]])[:length] for mine, theirs in parts)
        return one._replace(rejected=Example(*both))

    return _mismatched(coded, beside)


def encode_unpaired_seq2seq(
    examples: Iterable[Mapping],
    tokenizer: Any,
    *,
    inputs_length: int,
    targets_length: int,
    long: str = "error",
    unusable: str = "error",
) -> list[CodedPair]:
    """The same for an encoder-decoder; see `preference_rows.encode_preference_pairs`."""

    def encode(example: Mapping) -> list[CodedPair]:
        found = []
        for prompt, answer, desirable in as_judged(example):
            inputs, targets = encode_seq2seq(prompt, answer, tokenizer)
            found.append(CodedPair(inputs, targets, targets, float(desirable), str(prompt)))
        return found

    coded = encoded(examples, encode, unusable)
    coded = fitted_pairs(coded, inputs_length, targets_length, long=long, unusable=unusable)
    return _mismatched(coded, lambda one, other: one._replace(rejected=other.chosen))


def desirable(row: Row, rng: np.random.Generator | None = None) -> Row:
    """A row of a `Coded` of this file: `desirable` [] takes the place of `preferred`."""
    del rng
    return {name: array for name, array in row.items() if name != "preferred"} | {"desirable": row["preferred"]}


def _mismatched(coded: Sequence[AnyCoded], beside: Callable[[AnyCoded, AnyCoded], AnyCoded]) -> list[AnyCoded]:
    """Each beside the nearest one before it that has another prompt; before the first stands the last."""
    prompts = [one.asked for one in coded]
    others = [i for i, prompt in enumerate(prompts) if prompt != prompts[0]]
    if not others:
        raise ValueError(f"all {len(coded)} answers are to one prompt; KTO compares with answers to other prompts")
    found, other = [], others[-1]
    for i, prompt in enumerate(prompts):
        if i and prompts[i - 1] != prompt:
            other = i - 1
        found.append(beside(coded[i], coded[other]))
    return found
