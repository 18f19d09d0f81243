"""Arithmetic word problems without end, each with its answer, a chain of thought and a program.

A problem is a chain, a number and then steps `+ k`, `- k` or `* k`, told in one of three stories. It is a function of
(seed, index), and whether it is held out is a function of its chain alone: no chain of a held-out problem is ever in
training, whatever the seed and the story.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Greta", "Henry", "Ida", "Jack", "Kate", "Leo")
THINGS = ("apples", "pears", "books", "coins", "stamps", "shells", "pencils", "marbles")
HELD_OUT = 10  # one chain in so many

_TIMES = {2: "twice", 3: "three times"}
_GROWS = {2: "doubles", 3: "triples"}
_TOLD: dict[str, dict[str, tuple[str, ...]]] = {
    "holdings": {
        "+": ("{name} buys {k} more.", "{name} finds {k} more.", "{other} gives {k} to {name}."),
        "-": ("{name} gives {k} to {other}.", "{name} loses {k}.", "{name} sells {k}."),
        "*": ("The number of {things} {grows}.",),
    },
    "bus": {
        "+": ("At the next stop {k} get on.", "Then {k} more climb in."),
        "-": ("At the next stop {k} get off.", "Then {k} leave."),
        "*": ("The number of passengers {grows}.",),
    },
    "people": {
        "+": ("{next} has {k} more {things} than {name}.",),
        "-": ("{next} has {k} fewer {things} than {name}.",),
        "*": ("{next} has {times} as many {things} as {name}.",),
    },
}


@dataclass(frozen=True)
class Difficulty:
    """What problems are drawn: how many steps, between which numbers, up to which result.

    Attributes:
      steps, numbers: smallest and largest, both possible; small numbers are likelier, their logarithm is uniform.
      most: no value on the way is larger. distractors: the rate of sentences about other things behind the others.
    """

    steps: tuple[int, int]
    numbers: tuple[int, int]
    most: int
    distractors: float = 0.0

    def __post_init__(self) -> None:
        (fewest, longest), (low, high) = self.steps, self.numbers
        if not 1 <= fewest <= longest <= len(NAMES) - 2 or not 1 <= low <= high or self.most < 2 * high:
            raise ValueError(
                f"steps from 1 to {len(NAMES) - 2}, numbers from 1 and twice the largest of them in `most` are "
                f"needed, given {self}"
            )


class Problem(NamedTuple):
    """A question, its answer as a number, and two ways to it.

    `thoughts` end with "The answer is 12."; `program` defines `solution()`, which returns the answer.
    """

    question: str
    answer: int
    thoughts: str
    program: str
    chain: tuple[int | tuple[str, int], ...]


def word_problem(seed: int, index: int, difficulty: Difficulty, *, held_out: bool = False) -> Problem:
    """The problem of this number, from the held-out chains or from all others."""
    generator = np.random.default_rng([seed, index])
    while True:
        start, steps = _draw(generator, difficulty)
        if is_held_out((start, *steps)) == held_out:
            return _told(start, steps, generator, difficulty)


def is_held_out(chain: Sequence[int | tuple[str, int]]) -> bool:
    """Whether problems of this chain are kept from training."""
    return zlib.crc32(repr(tuple(chain)).encode()) % HELD_OUT == 0


def _between(generator: np.random.Generator, low: int, high: int) -> int:
    return int(generator.integers(low, high + 1))


def _number(generator: np.random.Generator, low: int, high: int) -> int:
    return min(high, int(np.exp(generator.uniform(np.log(low), np.log(high + 1)))))


def _pick(generator: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(generator.integers(len(options)))]


def _draw(generator: np.random.Generator, difficulty: Difficulty) -> tuple[int, list[tuple[str, int]]]:
    low, high = difficulty.numbers
    value = start = _number(generator, low, high)
    steps: list[tuple[str, int]] = []
    for _ in range(_between(generator, *difficulty.steps)):
        room, factor = difficulty.most - value, _between(generator, 2, 3)
        possible = [
            *("+" for _ in range(2) if room >= low),
            *("-" for _ in range(2) if value > low),
            *("*" for _ in range(1) if factor * value <= difficulty.most),
        ]
        kind = _pick(generator, possible)
        most = {"+": min(high, room), "-": min(high, value - 1)}
        k = factor if kind == "*" else _number(generator, low, most[kind])
        steps.append((kind, k))
        value = _after(value, kind, k)
    return start, steps


def _after(value: int, kind: str, k: int) -> int:
    return {"+": value + k, "-": value - k, "*": value * k}[kind]


def _told(
    start: int, steps: Sequence[tuple[str, int]], generator: np.random.Generator, difficulty: Difficulty
) -> Problem:
    people = [NAMES[i] for i in generator.permutation(len(NAMES))]
    things, others = (THINGS[i] for i in generator.permutation(len(THINGS))[:2])
    story = _pick(generator, tuple(_TOLD))
    name, variables = people[0], [things if story == "holdings" else "passengers"] * (len(steps) + 1)
    opening, asked = f"{name} has {start} {things}.", f"How many {things} does {name} have now?"
    if story == "bus":
        opening, asked = f"A bus has {start} passengers.", "How many passengers are on the bus now?"
    if story == "people":
        variables = [person.lower() for person in people[: len(steps) + 1]]
        asked = f"How many {things} does {people[len(steps)]} have?"
    sentences: list[str] = []

    def tell(sentence: str) -> None:
        sentences.append(sentence)
        if generator.random() < difficulty.distractors:
            sentences.append(f"{people[-1]} has {_number(generator, *difficulty.numbers)} {others}.")

    tell(opening)
    thoughts, lines, value = [], [f"{variables[0]} = {start}"], start
    for i, (kind, k) in enumerate(steps):
        words = {"name": people[i] if story == "people" else name, "next": people[i + 1], "other": people[-2]}
        words |= {"things": things, "times": _TIMES.get(k, ""), "grows": _GROWS.get(k, "")}
        tell(_pick(generator, _TOLD[story][kind]).format(k=k, **words))
        lines.append(f"{variables[i + 1]} = {variables[i]} {kind} {k}")
        before, value = value, _after(value, kind, k)
        thoughts.append(f"{before} {kind} {k} = {value}.")
    body = "".join(f"    {line}\n" for line in [*lines, f"return {variables[-1]}"])
    return Problem(
        " ".join([*sentences, asked]),
        value,
        " ".join([*thoughts, f"The answer is {value}."]),
        f"def solution():\n{body}",
        (start, *steps),
    )
