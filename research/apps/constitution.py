"""Constitutional AI as text: principles, critiques and revisions by them, comparisons of two answers.

Whatever maps prompts to texts writes (`Write`: a model trained here, a function, an address behind
`evaluation.ask.texts_by`), and whatever gives continuations a log-probability compares (`Weigh`:
`evaluation.likelihood.score_choices` of a model, or `by_writing`).
The wording between the parts is that of *Constitutional AI: Harmlessness from AI Feedback*, Bai et al.,
https://arxiv.org/abs/2212.08073, as published with it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from research.data.preference import ASSISTANT

HUMAN = "\n\nHuman:"
ASK_CRITIQUE, CRITIQUE = "\n\nCritiqueRequest:", "\n\nCritique:"
ASK_REVISION, REVISION = "\n\nRevisionRequest:", "\n\nRevision:"
CHOICES = (" (A)", " (B)")
_NEXT_PART = re.compile(r"\n\n(?:Human|Assistant|CritiqueRequest|Critique|RevisionRequest|Revision):")

Write = Callable[[list[str]], Sequence[str]]
"""Prompts -> one text each."""

Weigh = Callable[[list[tuple[str, Sequence[str]]]], Sequence[Sequence[float]]]
"""(prompt, continuations) each -> one log-probability per continuation."""


class Principle(NamedTuple):
    """What an answer is criticised for, and how it is to be revised; both without the marks around them."""

    name: str
    critique: str
    revision: str


class Revised(NamedTuple):
    """One round: an answer to a prompt (which ends with "Assistant:"), its critique and its revision."""

    prompt: str
    response: str
    principle: Principle
    critique: str
    revision: str

    @property
    def text(self) -> str:
        """As it was published, and as an example in front of a prompt."""
        return ask_revision(self.prompt, self.response, self.principle, self.critique) + f" {self.revision}"


class Compared(NamedTuple):
    """Two answers to a prompt, of which the first is the better one."""

    prompt: str
    better: str
    worse: str


@dataclass(frozen=True)
class Constitution:
    """Principles and examples.

    Attributes:
      principles: of critiques and revisions. examples: shown in front of them.
      comparisons: what a comparison asks for, each such as "Choose the response that ...".
      compared: examples for comparisons. reasoned: the same with reasoning, as whole texts in which {} is the question.
    """

    principles: tuple[Principle, ...]
    comparisons: tuple[str, ...]
    examples: tuple[Revised, ...] = ()
    compared: tuple[Compared, ...] = ()
    reasoned: tuple[str, ...] = ()


def ask_critique(prompt: str, response: str, principle: Principle) -> str:
    """The dialogue with the request for a critique, up to where the critique begins."""
    return f"{prompt} {response.strip()}{ASK_CRITIQUE} {principle.critique}{CRITIQUE}"


def ask_revision(prompt: str, response: str, principle: Principle, critique: str) -> str:
    """The same with the critique and the request for a revision, up to where the revision begins."""
    before = ask_critique(prompt, response, principle)
    return f"{before} {critique.strip()}{ASK_REVISION} {principle.revision}{REVISION}"


def ask_choice(prompt: str, first: str, second: str, comparison: str, compared: Sequence[Compared] = ()) -> str:
    """Which of two answers is better, as a question whose continuation is " (A)" or " (B)" (`CHOICES`).

    compared: examples in front, whose right choices are B, A, B, ... in turn.
    """
    shown = []
    for i, one in enumerate(compared):
        answers = (one.worse, one.better) if i % 2 == 0 else (one.better, one.worse)
        shown.append(_choice(one.prompt, *answers, comparison) + CHOICES[1 - i % 2])
    return "".join(shown) + _choice(prompt, first, second, comparison)


def ask_reasons(prompt: str, first: str, second: str, comparison: str, reasoned: Sequence[str] = ()) -> str:
    """The same as a dialogue in which the assistant thinks first; `ask_verdict` asks for the outcome.

    reasoned: examples in front (`Constitution.reasoned`), with the comparison in the place of their {}.
    """
    turns = _question(prompt).replace(HUMAN, "\n\nH:").replace(ASSISTANT, "\n\nA:")
    shown = "".join(example.replace("{}", f"\n{comparison} Options:") for example in reasoned)
    return (
        f"{shown}{HUMAN} Consider the following conversation between a human (H) and an assistant (A):{turns}"
        f"{_options(first, second, comparison)}{ASSISTANT} Let's think step by step:"
    )


def ask_verdict(asked: str, reasons: str) -> str:
    """The dialogue of `ask_reasons` with the reasons in it, up to " (A)" or " (B)"."""
    return f"{asked} {reasons.strip()}{HUMAN}\nSo the answer is:"


def soft_label(
    first: Sequence[float], swapped: Sequence[float] | None = None, *, clamp: tuple[float, float] = (0.0, 1.0)
) -> float:
    """How sure it is that the first answer is better: p(A) / (p(A) + p(B)), the mean over both orders where given.

    See Bai et al., section 4.1; both orders as in *RLAIF*, Lee et al., https://arxiv.org/abs/2309.00267, section 2.1.1.

    Args:
      first: log-probabilities of " (A)" and " (B)", the first answer being (A). swapped: the same, it being (B).
      clamp: least and most; after reasoning, which makes a model too sure, Bai et al. use (0.4, 0.6).

    Raises:
      ValueError: not two log-probabilities of which one is finite, or a clamp that is no range in 0 .. 1.
    """
    low, high = clamp
    if not 0 <= low <= high <= 1:
        raise ValueError(f"clamp is a range in 0 .. 1, given {clamp}")
    sure = _share(first) if swapped is None else (_share(first) + 1 - _share(swapped)) / 2
    return float(min(max(sure, low), high))


def by_writing(write: Write) -> Weigh:
    """Comparisons by an assistant that gives no log-probabilities: 0 for the choice it writes first, else −∞.

    Where no choice can be read, both are as likely.
    """

    def weigh(questions: list[tuple[str, Sequence[str]]]) -> list[list[float]]:
        found = []
        for (_, choices), text in zip(questions, _ask(write, [prompt for prompt, _ in questions]), strict=True):
            places = [(text.find(choice.strip()), i) for i, choice in enumerate(choices) if choice.strip() in text]
            chosen = min(places)[1] if places else None
            found.append([0.0 if chosen in (i, None) else -np.inf for i in range(len(choices))])
        return found

    return weigh


def revise(
    write: Write,
    prompts: Sequence[str],
    responses: Sequence[str],
    constitution: Constitution,
    *,
    rounds: int = 1,
    shots: int = 0,
    seed: int = 0,
) -> list[list[Revised]]:
    """Critiques and revisions of every response, by principles drawn anew for each prompt and round; one list a prompt.

    What a round revised is what the next one criticises. A critique or revision ends where a new part would begin.

    Args:
      shots: examples of the constitution in front of every prompt, its first ones in their order.

    Raises:
      ValueError: no round, another number of responses than of prompts, fewer examples than `shots`, or an assistant
        that gives something else than one text per prompt.
    """
    _require_as_many(prompts, responses, "responses")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, given {rounds}")
    before = "".join(example.text for example in _first(constitution.examples, shots))
    found: list[list[Revised]] = [[] for _ in prompts]
    current = list(responses)
    for number in range(rounds):
        generator = np.random.default_rng([seed, number])
        places = generator.integers(len(constitution.principles), size=len(prompts))
        rows = [(p, r, constitution.principles[i]) for p, r, i in zip(prompts, current, places, strict=True)]
        critiques = _ask(write, [before + ask_critique(*row) for row in rows])
        asked = [before + ask_revision(*row, critique) for row, critique in zip(rows, critiques, strict=True)]
        revisions = _ask(write, asked)
        for chain, row, critique, revision in zip(found, rows, critiques, revisions, strict=True):
            chain.append(Revised(*row, critique, revision))
        current = revisions
    return found


def supervised(chains: Sequence[Sequence[Revised]], *, unusable: str = "error") -> list[dict[str, str]]:
    """`prompt` and `completion` of the last revision of each: what the supervised stage learns from.

    unusable: what becomes of a chain whose last revision is empty: "error" or "drop".

    Raises:
      ValueError: an empty revision, or none that is left.
    """
    if unusable not in ("error", "drop"):
        raise ValueError(f"unknown unusable={unusable!r}; have ['drop', 'error']")
    rows = []
    for number, chain in enumerate(chains):
        last = chain[-1]
        if last.revision.strip():
            rows.append({"prompt": last.prompt, "completion": f" {last.revision.strip()}"})
        elif unusable == "error":
            raise ValueError(f"prompt {number}, {last.prompt!r:.80}: the revision in round {len(chain)} is empty")
    if not rows:
        raise ValueError(f"none of {len(chains)} revisions is left to learn from: all are empty")
    return rows


def prefer(
    weigh: Weigh,
    prompts: Sequence[str],
    answers: Sequence[tuple[str, str]],
    constitution: Constitution,
    *,
    think: Write | None = None,
    clamp: tuple[float, float] = (0.0, 1.0),
    shots: int = 0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Two answers to each prompt with a soft label, by a comparison that is drawn for each; both orders are asked.

    A row has `prompt`, `chosen` (the first answer), `rejected`, `comparison` and `preferred` (how sure the assistant is
    of the first); `data.preference` reads it. Equal and empty answers make no pair.

    Args:
      think: writes reasons first (`ask_reasons`). clamp: see `soft_label`.
      shots: examples of the constitution in front of every question, its first ones in their order.

    Raises:
      ValueError: no pair is left, or the assistant is sure of none of them (one class only); also as in `revise`.
    """
    _require_as_many(prompts, answers, "pairs of answers")
    examples: Sequence = constitution.compared if think is None else constitution.reasoned
    shown = _first(examples, shots)
    drawn = np.random.default_rng(seed).integers(len(constitution.comparisons), size=len(prompts))
    rows = [
        (prompt, a.strip(), b.strip(), constitution.comparisons[i])
        for prompt, (a, b), i in zip(prompts, answers, drawn, strict=True)
        if a.strip() and b.strip() and a.strip() != b.strip()
    ]
    if not rows:
        raise ValueError(f"no pair is left of {len(prompts)}: their answers are empty or equal")
    orders = [order for prompt, a, b, how in rows for order in ((prompt, a, b, how), (prompt, b, a, how))]
    if think is None:
        questions = [ask_choice(*order, shown) for order in orders]
    else:
        asked = [ask_reasons(*order, shown) for order in orders]
        questions = [ask_verdict(*both) for both in zip(asked, _ask(think, asked), strict=True)]
    said = list(weigh([(question, CHOICES) for question in questions]))
    if len(said) != len(orders):
        raise ValueError(f"an assistant answers every comparison; asked {len(orders)}, it answered {len(said)}")
    labels = [soft_label(*both, clamp=clamp) for both in zip(said[::2], said[1::2], strict=True)]
    if all(abs(label - 0.5) < 1e-6 for label in labels):
        raise ValueError(f"one class only: the assistant prefers neither answer in any of {len(labels)} pairs")
    names = ("prompt", "chosen", "rejected", "comparison", "preferred")
    return [
        dict(zip(names, (prompt, f" {a}", f" {b}", how, label), strict=True))
        for (prompt, a, b, how), label in zip(rows, labels, strict=True)
    ]


def _question(prompt: str) -> str:
    """The dialogue without the mark of the answer that is to come."""
    return prompt.removesuffix(ASSISTANT)


def _options(first: str, second: str, comparison: str) -> str:
    return f"\n\n\n{comparison} Options:\n (A) [[[{first.strip()}]]]\n (B) [[[{second.strip()}]]]"


def _choice(prompt: str, first: str, second: str, comparison: str) -> str:
    return (
        f"\n\nConsider the following conversation between a human and an assistant:{_question(prompt)}"
        f"{_options(first, second, comparison)}\n\nThe answer is:"
    )


def _share(logprobs: Sequence[float]) -> float:
    """p(A) / (p(A) + p(B))."""
    both = np.asarray(logprobs, np.float64)
    if both.shape != (2,) or np.isnan(both).any() or not np.isfinite(np.max(both)):
        raise ValueError(f"expected the log-probabilities of two choices, given {logprobs!r}")
    shares = np.exp(both - np.max(both))
    return float(shares[0] / shares.sum())


def _ask(write: Write, prompts: list[str]) -> list[str]:
    """What is written behind each prompt, up to where a new part of the dialogue begins."""
    texts = list(write(prompts))
    strange = [type(text).__name__ for text in texts if not isinstance(text, str)]
    if len(texts) != len(prompts) or strange:
        got = f"{len(texts)} texts" + (f", among them {strange[0]}" if strange else "")
        raise ValueError(f"an assistant writes one text per prompt; asked {len(prompts)} prompts, it gave {got}")
    return [_NEXT_PART.split(text, maxsplit=1)[0].strip() for text in texts]


def _first(examples: Sequence, shots: int) -> Sequence:
    if not 0 <= shots <= len(examples):
        raise ValueError(f"{shots} examples were asked for; the constitution has {len(examples)}")
    return examples[:shots]


def _require_as_many(prompts: Sequence, others: Sequence, what: str) -> None:
    if len(prompts) != len(others):
        raise ValueError(f"{len(prompts)} prompts but {len(others)} {what}")
