"""Text metrics over a test set, each a mean with a bootstrap interval."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from rouge_score import rouge_scorer

ROUGE_KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
PARTS = ("precision", "recall", "fmeasure")


class Interval(NamedTuple):
    """The mean of a metric over the examples and its bootstrap percentile interval."""

    low: float
    mean: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(values: np.ndarray, *, samples: int = 1000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Percentile interval of the mean: the mean of `samples` resamplings of `values` [n] with replacement.

    See *An Introduction to the Bootstrap*, Efron and Tibshirani, 1993, chapter 13. A single value gives an
    interval of width zero. Raises ValueError when `values` is empty or not one-dimensional.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"bootstrap needs a non-empty list of numbers, one per example; got shape {values.shape}")
    generator = np.random.default_rng(seed)
    means = np.array([values[generator.integers(0, values.size, values.size)].mean() for _ in range(samples)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(values.mean()), float(high))


def rouge(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    kinds: Sequence[str] = ROUGE_KINDS,
    stemmer: bool = False,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Interval]]:
    """ROUGE precision, recall and F₁ over pairs of texts: `result["rouge2"]["fmeasure"].mean`.

    ROUGE-N counts common n-grams, ROUGE-L the longest common subsequence of words, ROUGE-Lsum the union of such
    subsequences over lines. See *ROUGE: A Package for Automatic Evaluation of Summaries*, Lin, 2004; the numbers
    are those of the `rouge-score` package. Raises ValueError for unequal lengths, no pairs or an unknown kind.
    """
    check_pairs(predictions, references)
    unknown = sorted(set(kinds) - set(ROUGE_KINDS))
    if unknown:
        raise ValueError(f"unknown kinds of ROUGE {unknown}; have {list(ROUGE_KINDS)}")
    scorer = rouge_scorer.RougeScorer(list(kinds), use_stemmer=stemmer)
    scores = [scorer.score(target, prediction) for target, prediction in zip(references, predictions, strict=True)]
    return {
        kind: {
            part: bootstrap(np.array([getattr(s[kind], part) for s in scores]), samples=samples, seed=seed)
            for part in PARTS
        }
        for kind in kinds
    }


def exact_match(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    normalize: Callable[[str], str] = str.strip,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """The share of predictions equal to their reference after `normalize` (default: outer whitespace removed)."""
    check_pairs(predictions, references)
    hits = [normalize(p) == normalize(r) for p, r in zip(predictions, references, strict=True)]
    return bootstrap(np.array(hits, np.float64), samples=samples, seed=seed)


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Bits that a model needs per byte of text: Σ −ln p / (ln 2 · bytes), so tokenizers can be compared."""
    if n_bytes <= 0:
        raise ValueError(f"bits per byte of {n_bytes} bytes of text is not defined")
    return float(nats) / math.log(2) / n_bytes


def check_pairs(predictions: Sequence[str], references: Sequence[Any]) -> None:
    """Raises ValueError unless there are as many predictions as references, at least one."""
    if isinstance(predictions, str) or isinstance(references, str):
        raise ValueError("predictions and references are lists of texts, one per example; got a single text")
    if len(predictions) != len(references) or not predictions:
        raise ValueError(
            "metrics need as many predictions as references, at least one; "
            f"got {len(predictions)} and {len(references)}"
        )
