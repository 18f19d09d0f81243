"""What benchmarks are scored by: each metric is a statistic of rows, so all have intervals and paired tests.

An answer that could not be read (prediction None) is wrong everywhere: no number, no class, no right text.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from research.apps.prompting import Item, Outcome, Task
from research.core.names import meant
from research.evaluation.paired import Statistic, mean
from research.evaluation.squad import exact, normalized, trivia_normalized, word_f1
from research.evaluation.text_metrics import Interval

from .humaneval import FAILED, PASSED
from .statistics import f1, macro_f1, matthews, pearson, spearman

Value = Callable[[Item, Outcome], float]
CLOSE = 1e-3  # how near a number must be


@dataclass(frozen=True)
class Metric:
    """One number for a task's outcomes.

    Attributes:
      rows: (task, outcomes) -> one row per item, or per group of items; what intervals and paired tests draw from.
      statistic: rows -> the number; the mean of the rows unless the metric is no mean.
    """

    rows: Callable[[Task, Sequence[Outcome]], np.ndarray]
    statistic: Statistic = mean

    def __call__(self, task: Task, outcomes: Sequence[Outcome]) -> float:
        return float(self.statistic(self.rows(task, outcomes)))


def scored(
    task: Task, outcomes: Sequence[Outcome], *, samples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """All metrics of a task, each with the percentile interval of its statistic over resampled rows.

    Raises:
      ValueError: a metric that does not exist, or outcomes that are not one per item (of "pass@k": k or more).
    """
    unknown = [name for name in task.metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"unknown metric {unknown[0]!r}{meant(unknown[0], METRICS)}; have {sorted(METRICS)}")
    found = {}
    for name in task.metrics:
        metric, generator = METRICS[name], np.random.default_rng(seed)
        rows = metric.rows(task, outcomes)
        drawn = [metric.statistic(rows[generator.integers(0, len(rows), len(rows))]) for _ in range(samples)]
        low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
        found[name] = Interval(float(low), float(metric.statistic(rows)), float(high))
    return found


def matched(task: Task, outcomes: Sequence[Outcome]) -> list[tuple[Item, Outcome]]:
    """Every item with its outcome, in the order of the items.

    Raises:
      ValueError: no item, an item without an outcome or with two, or an outcome of no item.
    """
    place = {item.id: item for item in task.items}
    found = {outcome.item: outcome for outcome in outcomes}
    extra = [outcome.item for outcome in outcomes if outcome.item not in place]
    missing = [key for key in place if key not in found]
    if extra or missing or len(found) != len(outcomes) or not place:
        which = f"no item {extra[0]!r}" if extra else f"no outcome of {missing[0]!r}" if missing else "some twice"
        raise ValueError(f"{task.name}: {len(outcomes)} outcomes of {len(place)} items, expected one of each; {which}")
    return [(item, found[key]) for key, item in place.items()]


def right(item: Item, outcome: Outcome) -> float:
    """1 for a right choice, by number or by its text, or a text among the right ones, outer blanks aside."""
    given = outcome.prediction
    if isinstance(given, str):
        return float(given.strip() in {text.strip() for text in (*item.answers, *(item.choices[g] for g in item.gold))})
    return float(given is not None and given in item.gold)


def number(item: Item, outcome: Outcome) -> float:
    """1 for a number within 0.001 of a right one."""
    given = _number(outcome.prediction)
    return float(any(abs(given - _number(answer)) < CLOSE for answer in item.answers))


def grade(item: Item, outcome: Outcome) -> float:
    """BIG-bench's grade of the chosen option."""
    chosen = _choice(item, outcome)
    return float(item.info["grades"][chosen]) if chosen >= 0 else 0.0


def exact_str(item: Item, outcome: Outcome) -> float:
    """BIG-bench's exact match: what the file's pattern first finds in the output is a target."""
    given = outcome.prediction if isinstance(outcome.prediction, str) else ""
    pattern = item.info.get("pattern")
    if pattern:
        hit = re.search(pattern, given)
        given = hit.group() if hit else ""
    return float(given.strip() in item.answers)


def true_mass(item: Item, outcome: Outcome) -> float:
    """Σ_true p / Σ p of the choices' probabilities (TruthfulQA's MC2), of scores that are log probabilities."""
    scores = np.array(outcome.scores, np.float64)
    if len(scores) != len(item.choices):
        raise ValueError(f"item {item.id!r} has {len(item.choices)} choices but scores of {len(scores)}")
    p = np.exp(scores - np.max(scores))
    return float(p[list(item.gold)].sum()) / float(p.sum())


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased share of k samples that hold a right one, 1 − C(n−c, k) / C(n, k), of n samples with c right.

    See *Evaluating Large Language Models Trained on Code*, Chen et al., https://arxiv.org/abs/2107.03374.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs {k} or more samples and 0 to all of them right; got n={n}, c={c}")
    return float(1 - np.prod(1 - k / np.arange(n - c + 1, n + 1))) if n - c >= k else 1.0


def passed(k: int) -> Metric:
    """pass@k of outcomes that `humaneval.run_programs` has judged, one or several per item."""

    def rows(task: Task, outcomes: Sequence[Outcome]) -> np.ndarray:
        count: dict[str, list[bool]] = {item.id: [] for item in task.items}
        for outcome in outcomes:
            if outcome.item not in count:
                raise ValueError(f"{task.name} has no item {outcome.item!r}, of which there is an outcome")
            if outcome.prediction not in (PASSED, FAILED):
                raise ValueError(
                    f"{task.name}: the program of {outcome.item!r} has not been run; pass@{k} needs the outcomes of "
                    "humaneval.run_programs"
                )
            count[outcome.item].append(outcome.prediction == PASSED)
        return np.array([pass_at_k(len(hits), sum(hits), k) for hits in count.values()])

    return Metric(rows)


def _each(value: Value) -> Metric:
    """The mean of a value of each item."""
    return Metric(lambda task, outcomes: np.array([value(*pair) for pair in matched(task, outcomes)]))


def _best(score: Callable[..., float], normalize: Callable[[str], str]) -> Metric:
    """The mean over items of the best score over the right texts; a chosen option counts by its text."""

    def value(item: Item, outcome: Outcome) -> float:
        given = outcome.prediction
        text = item.info["options"][given] if isinstance(given, int) else given
        return max(score(text, answer, normalize) for answer in item.answers) if text is not None else 0.0

    return _each(value)


def _labels(task: Task, outcomes: Sequence[Outcome]) -> np.ndarray:
    return np.array([(item.gold[0], _choice(item, outcome)) for item, outcome in matched(task, outcomes)])


def _values(task: Task, outcomes: Sequence[Outcome]) -> np.ndarray:
    return np.array([(item.info["value"], _expected(item, outcome)) for item, outcome in matched(task, outcomes)])


def _masses(task: Task, outcomes: Sequence[Outcome]) -> np.ndarray:
    if task.by != "sum":
        raise ValueError(f"{task.name}: mc2 needs the choices' log probabilities, by='sum'; the task has {task.by!r}")
    return np.array([true_mass(*pair) for pair in matched(task, outcomes)])


def _groups(task: Task, outcomes: Sequence[Outcome]) -> np.ndarray:
    """1 for each group of items that are all right."""
    groups = defaultdict(list)
    for item, outcome in matched(task, outcomes):
        groups[item.info["group"]].append(right(item, outcome))
    return np.array([min(values) for values in groups.values()])


def _choice(item: Item, outcome: Outcome) -> int:
    """The number of the chosen choice; −1 if none was."""
    if isinstance(outcome.prediction, str):
        texts = [text.strip() for text in item.choices]
        return texts.index(outcome.prediction.strip()) if outcome.prediction.strip() in texts else -1
    return -1 if outcome.prediction is None else outcome.prediction


def _expected(item: Item, outcome: Outcome) -> float:
    """Choices that are numbers, weighted by their probabilities; without scores the chosen one."""
    values = np.array([float(text) for text in item.choices])
    if not outcome.scores:
        given = outcome.prediction
        found = float(values[given]) if isinstance(given, int) else _number(given)
        return found if np.isfinite(found) else 0.0
    p = np.exp(np.array(outcome.scores) - max(outcome.scores))
    return float((p * values).sum() / p.sum())


def _number(text: object) -> float:
    try:
        return float(str(text).replace(",", ""))
    except ValueError:
        return np.nan


METRICS: Mapping[str, Metric] = {
    "acc": _each(right),
    "exact_match": _each(right),
    "number": _each(number),
    "matthews": Metric(_labels, matthews),
    "f1": Metric(_labels, f1),
    "macro_f1": Metric(_labels, macro_f1),
    "pearson": Metric(_values, pearson),
    "spearman": Metric(_values, spearman),
    "multirc_f1a": Metric(_labels, f1),
    "multirc_em": Metric(_groups),
    "record_em": _best(exact, normalized),
    "record_f1": _best(word_f1, normalized),
    "squad_em": _best(exact, normalized),
    "squad_f1": _best(word_f1, normalized),
    "trivia_qa_em": _best(exact, trivia_normalized),
    "trivia_qa_f1": _best(word_f1, trivia_normalized),
    "multiple_choice_grade": _each(grade),
    "exact_str_match": _each(exact_str),
    "mc2": Metric(_masses),
    "pass@1": passed(1),
    "pass@10": passed(10),
    "pass@100": passed(100),
}
