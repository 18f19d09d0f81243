"""Examples in front of a question: which ones, in which order, and how many of them a window holds.

In all orders the last example counts most, so a prompt that drops its first ones is the prompt with fewer examples.
"""

import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from research.core.names import meant
from research.data.word_vectors import TfIdf

from .task import Item, Task

ORDERS = ("random", "balanced", "nearest", "first")


@dataclass(frozen=True)
class Prompt:
    """What a model is asked.

    Attributes:
      used, dropped: how many examples stand in front of the question, and how many had no room; a preamble is one.
    """

    text: str
    used: int
    dropped: int


def choose(task: Task, item: Item, k: int, *, seed: int = 0, how: str = "random") -> list[Item]:
    """k examples of the task's pool for one item, the same ones for the same seed, task and item.

    The asked item is never among them, nor one that asks the same. Those for k are the last ones of those for k + 1; of
    the first ones, the first.

    how: "random"; "balanced": answers take turns, so that their numbers differ by at most one unless one runs out;
      "nearest": the most similar questions by tf-idf, the nearest one last, see *What Makes Good In-Context Examples
      for GPT-3?*, Liu et al., https://arxiv.org/abs/2101.06804; "first": as they stand in the pool, which is how the
      five of each subject of MMLU are published.

    Raises:
      ValueError: an unknown order, a negative k, or more examples than there are.
    """
    if how not in ORDERS:
        raise ValueError(f"unknown way to choose examples {how!r}{meant(how, ORDERS)}; have {list(ORDERS)}")
    questions = tuple(other.question for other in task.pool)
    same = set(_places(questions).get(_folded(item.question), ()))
    left = [i for i, other in enumerate(task.pool) if i not in same and other.id != item.id]
    if not 0 <= k <= len(left):
        raise ValueError(f"{task.name}: k={k} examples; beside item {item.id!r} the pool has {len(left)} to draw from")
    if how == "first":
        return [task.pool[i] for i in left[:k]]
    if k == 0:
        return []
    generator = np.random.default_rng([seed, *(zlib.crc32(text.encode()) for text in (task.name, item.id))])
    left = generator.permutation(left).tolist()
    if how == "balanced":
        left = _in_turns(task.pool, left)
    elif how == "nearest":
        similarity = _vectors(questions).similarity([item.question])[0]
        left.sort(key=lambda i: -similarity[i])  # equals stay in their random order
    return [task.pool[i] for i in reversed(left[:k])]


def build(
    task: Task,
    item: Item,
    shots: Sequence[Item],
    *,
    count: Callable[[str], int] | None = None,
    window: int | None = None,
) -> Prompt:
    """Description, examples and question, with the task's separator between them.

    The examples are the shots or, without any, the task's preamble. Those that do not fit are left out whole, the first
    ones first.

    count: text -> number of tokens. window: how many tokens the model holds; the longest choice, or without choices
      `task.max_new_tokens`, must find room behind the question.

    Raises:
      ValueError: shots beside a preamble, one of `count` and `window` without the other, or a question that does not
        fit by itself (names the item).
    """
    if shots and task.preamble:
        raise ValueError(
            f"{task.name} has published examples (its preamble): they leave no place for {len(shots)} others"
        )
    if (count is None) != (window is None):
        raise ValueError("a window needs count (text -> number of tokens), and count a window; only one was given")
    examples = [shot.solved for shot in shots] or [task.preamble] * bool(task.preamble)
    before = [task.description] * bool(task.description)

    def join(used: int) -> str:
        return task.separator.join([*before, *examples[len(examples) - used :], item.question])

    if count is None or window is None:
        return Prompt(join(len(examples)), len(examples), 0)

    def needed(used: int) -> int:
        text = join(used)
        return (
            max(count(text + choice) for choice in item.choices) if item.choices else count(text) + task.max_new_tokens
        )

    most = len(examples)
    used = most if needed(most) <= window else bisect_right(range(most), window, key=needed) - 1
    if used < 0:
        raise ValueError(
            f"{task.name}: item {item.id!r} needs {needed(0)} tokens without any example, its answer included; "
            f"the window has {window}"
        )
    return Prompt(join(used), used, most - used)


def _in_turns(pool: Sequence[Item], order: Sequence[int]) -> list[int]:
    """The same items so that the answers take turns, each round in the order in which they come up."""
    rounds: dict[str, int] = {}
    turn = []
    for i in order:
        answer = pool[i].solved[len(pool[i].question) :]
        turn.append(rounds.get(answer, 0))
        rounds[answer] = turn[-1] + 1
    return [order[i] for i in np.argsort(turn, kind="stable").tolist()]


@lru_cache(maxsize=4)
def _vectors(questions: tuple[str, ...]) -> TfIdf:
    return TfIdf(questions)


@lru_cache(maxsize=4)
def _places(questions: tuple[str, ...]) -> dict[str, list[int]]:
    """Where each folded question stands."""
    found: dict[str, list[int]] = {}
    for i, question in enumerate(questions):
        found.setdefault(_folded(question), []).append(i)
    return found


def _folded(question: str) -> str:
    """A question without its blanks and case."""
    return " ".join(question.lower().split())
