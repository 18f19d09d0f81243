"""A card of one model: accuracy, calibration, robustness, fairness, bias, toxicity and efficiency, with intervals.

The dimensions are those of *Holistic Evaluation of Language Models*, Liang et al., https://arxiv.org/abs/2211.09110.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from research.apps.prompting import Outcome, Task, shots
from research.core.types import Params
from research.models import Model

from . import ask as asking
from .benchmarks import METRICS, scored
from .paired import paired_bootstrap
from .text_metrics import Interval, bootstrap
from .versions import about_names, about_women_and_men, written_worse

Ask = Callable[[Sequence[Task]], Sequence[Sequence[Outcome]]]  # each task's outcomes, one per item
Score = Callable[[Sequence[str]], np.ndarray]  # texts -> how toxic each is, in 0..1


@dataclass(frozen=True)
class Card:
    """What was measured of a model, as JSON values; an interval is [low, mean, high].

    Attributes:
      accuracy: {task: {metric: interval}}. items: {task: number of items}.
      confidence, correct: one entry per item with scored choices: probability of the chosen one, 1 if it is right.
      robustness: {perturbation: interval} of the share of right answers; "unchanged" before, "worst" where an item
        counts as right only if it is so in all versions.
      fairness: {"gender": ..., "names": ...}, each with `items`, `right` ({version: interval}), `same` (share of items
        answered alike in all versions), `worst`; empty where no item speaks of people.
      bias: {"gender": ...}: the difference of right answers, female less male, its interval and p.
      toxicity: see `toxicity_of`; empty where it was not measured.
      efficiency: named numbers. notes: what a reader has to know.
    """

    model: str
    accuracy: dict[str, dict[str, list[float]]]
    items: dict[str, int]
    confidence: list[float] = field(default_factory=list)
    correct: list[float] = field(default_factory=list)
    robustness: dict[str, list[float]] = field(default_factory=dict)
    fairness: dict[str, dict[str, Any]] = field(default_factory=dict)
    bias: dict[str, dict[str, Any]] = field(default_factory=dict)
    toxicity: dict[str, Any] = field(default_factory=dict)
    efficiency: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def save(self, path: str | Path) -> None:
        """Writes it as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> "Card":
        """A saved card.

        Raises:
          ValueError: the file holds something else.
        """
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no card: {error}") from None


def measure(
    model: str,
    ask: Ask,
    tasks: Sequence[Task],
    *,
    names: Sequence[str] = ("english", "chinese"),
    toxicity: Mapping[str, Any] | None = None,
    efficiency: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
    seed: int = 0,
) -> Card:
    """Asks every task as it is, written worse, and about somebody else, all in one call of `ask`.

    names: groups of `counterfactual.NAMES` that are compared. toxicity, efficiency: what was measured elsewhere.

    Raises:
      ValueError: no task, two of one name, or fewer than two groups of names.
    """
    if not tasks or len({task.name for task in tasks}) != len(tasks) or len(set(names)) < 2:
        raise ValueError(
            f"a card needs tasks of different names and two groups of names or more; got "
            f"{[task.name for task in tasks]} and {list(names)}"
        )
    worse = [written_worse(task, seed=seed) for task in tasks]
    gender = [about_women_and_men(task, seed=seed) for task in tasks]
    named = [about_names(task, names, seed=seed) for task in tasks]
    asked = [*tasks, *(version for group in (*worse, *gender, *named) for version in group.values())]
    filled = [task for task in asked if task.items]
    found = iter(ask(filled))
    outcomes = {id(task): list(next(found)) for task in filled}
    right = {id(task): METRICS["acc"].rows(task, outcomes[id(task)]) for task in filled}
    confidence, correct = confidences([(outcomes[id(task)], right[id(task)]) for task in tasks])

    def pooled(versions: Sequence[Mapping[str, Task]]) -> dict[str, np.ndarray]:
        """{version: right answers over all tasks}, empty where no item is left."""
        some = [group for group in versions if next(iter(group.values())).items]
        return {name: np.concatenate([right[id(group[name])] for group in some]) for name in some[0]} if some else {}

    def alike(versions: Sequence[Mapping[str, Task]]) -> list[bool]:
        said = [
            [[o.prediction for o in outcomes[id(task)]] for task in group.values()]
            for group in versions
            if next(iter(group.values())).items
        ]
        return [len(set(answers)) == 1 for group in said for answers in zip(*group, strict=True)]

    unchanged = np.concatenate([right[id(task)] for task in tasks])
    sexes = pooled(gender)
    return Card(
        model,
        accuracy={task.name: _lists(scored(task, outcomes[id(task)], seed=seed)) for task in tasks},
        items={task.name: len(task.items) for task in tasks},
        confidence=confidence,
        correct=correct,
        robustness=_lists(_with_worst({"unchanged": unchanged, **pooled(worse)})),
        fairness={
            name: {"items": len(alike(group)), "same": float(np.mean(alike(group)))} | _rights(pooled(group))
            for name, group in (("gender", gender), ("names", named))
            if pooled(group)
        },
        bias={"gender": _difference(sexes["female"], sexes["male"], seed)} if sexes else {},
        toxicity=dict(toxicity or {}),
        efficiency=dict(efficiency or {}),
        notes=list(notes),
    )


def asker(
    model: Model,
    params: Params,
    tokenizer: Any,
    *,
    k: int = 0,
    how: str = "random",
    seed: int = 0,
    batch_size: int = 16,
) -> Ask:
    """How a model is asked: choices by likelihood, other answers written, behind k examples or as many as it holds.

    Without examples a question that is too long for the model loses its beginning.
    """
    count, window = asking.count(model, params, tokenizer)
    room: dict[str, Any] = {"count": count, "window": window} if k else {}

    def ask(tasks: Sequence[Task]) -> list[list[Outcome]]:
        found = []
        for task in tasks:
            chosen = [shots.choose(task, item, k, seed=seed, how=how) if k else [] for item in task.items]
            prompts = [shots.build(task, i, some, **room) for i, some in zip(task.items, chosen, strict=True)]
            asked = [asking.Asked(item, prompt.text) for item, prompt in zip(task.items, prompts, strict=True)]
            answer = asking.choose if all(item.choices for item in task.items) else asking.write
            found.append(answer(model, params, tokenizer, task, asked, long="cut", batch_size=batch_size))
        return found

    return ask


def confidences(results: Sequence[tuple[Sequence[Outcome], np.ndarray]]) -> tuple[list[float], list[float]]:
    """Of outcomes with scores: the chosen choice's share of exp(score) among the choices, and whether it is right."""
    confidence, correct = [], []
    for outcomes, right in results:
        for outcome, hit in zip(outcomes, right, strict=True):
            if len(outcome.scores) > 1 and isinstance(outcome.prediction, int):
                p = np.exp(np.array(outcome.scores) - max(outcome.scores))
                confidence.append(float(p[outcome.prediction] / p.sum()))
                correct.append(float(hit))
    return confidence, correct


def toxicity_of(
    score: Score, continuations: Mapping[str, Sequence[str]], threshold: float, *, seed: int = 0
) -> dict[str, Any]:
    """How much of what a model wrote a scorer finds toxic.

    continuations: {kind of prompt: what was written}. The result holds `threshold`, `texts`, `share` (interval of the
    share above it, over all) and `kinds` ({kind: interval}).

    Raises:
      ValueError: nothing was written.
    """
    if not any(continuations.values()):
        raise ValueError("toxicity needs at least one text that the model wrote")
    above = {kind: np.asarray(score(list(texts))) > threshold for kind, texts in continuations.items() if texts}
    every = np.concatenate(list(above.values())).astype(np.float64)
    return {
        "threshold": threshold,
        "texts": len(every),
        "share": list(bootstrap(every, seed=seed)),
        "kinds": {kind: list(bootstrap(hits.astype(np.float64), seed=seed)) for kind, hits in above.items()},
    }


def _with_worst(rows: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """Every version's share of right answers, and that of items that are right in all of them."""
    worst = np.min(list(rows.values()), axis=0)
    return {name: bootstrap(found) for name, found in {**rows, "worst": worst}.items()}


def _rights(rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
    found = _lists(_with_worst(rows))
    return {"worst": found.pop("worst"), "right": found}


def _difference(first: np.ndarray, second: np.ndarray, seed: int) -> dict[str, Any]:
    found = paired_bootstrap(first, second, seed=seed)
    return {"difference": list(found.difference), "p": found.p, "items": len(first)}


def _lists(intervals: Mapping[str, Interval]) -> dict[str, list[float]]:
    return {name: list(interval) for name, interval in intervals.items()}
