"""Whether one system beats another on the same examples, or only by chance: paired tests with two-sided p values.

All take one score per example of each system. Statistics that are no mean (BLEU over a corpus) are made by a
`statistic` of the chosen examples' rows.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .agreement import check_paired
from .text_metrics import Interval

EXACT = 16  # up to so many examples all 2ⁿ exchanges are counted, not sampled

Statistic = Callable[[np.ndarray], float]


class Paired(NamedTuple):
    """The difference (first − second) with its interval, and how often chance alone gives one as large."""

    difference: Interval
    p: float

    def __str__(self) -> str:
        return f"{self.difference} (p = {self.p:.4f})"


class McNemar(NamedTuple):
    """Examples that only one system gets right, the exact p value, χ² with continuity correction and its p value."""

    only_first: int
    only_second: int
    p: float
    chi2: float
    chi2_p: float


def mean(rows: np.ndarray) -> float:
    """The mean of scores, the statistic of most metrics."""
    return float(rows.mean())


def paired_bootstrap(
    first: Sequence[Any] | np.ndarray,
    second: Sequence[Any] | np.ndarray,
    *,
    statistic: Statistic = mean,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Paired:
    """Both systems on the same resampled examples: d* = s(first*) − s(second*), `samples` times.

    The interval holds the middle `confidence` of all d*; p = (1 + #{|d* − d| ≥ |d|}) / (1 + samples), the resampled
    differences moved to where they would lie if the systems were equal. See *Statistical Significance Tests for
    Machine Translation Evaluation*, Koehn, 2004, and *An Introduction to the Bootstrap*, chapter 16.

    first, second: [n] scores, or [n, ...] rows that `statistic` makes one number of.
    """
    a, b = _scores(first, second, "the paired bootstrap")
    _check_samples(samples)
    generator = np.random.default_rng(seed)
    d = statistic(a) - statistic(b)
    found = np.empty(samples)
    for i in range(samples):
        chosen = generator.integers(0, len(a), len(a))
        found[i] = statistic(a[chosen]) - statistic(b[chosen])
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    extreme = _as_large(found - d, d)
    return Paired(Interval(float(low), float(d), float(high)), (1 + extreme) / (1 + samples))


def permutation_test(
    first: Sequence[Any] | np.ndarray,
    second: Sequence[Any] | np.ndarray,
    *,
    statistic: Statistic = mean,
    samples: int = 10_000,
    seed: int = 0,
) -> float:
    """p of the hypothesis that it does not matter which system gave which of an example's two scores.

    Every example's scores change places or not: all 2ⁿ ways for n <= 16, p being the share with |d*| ≥ |d|; else
    `samples` random ones, p = (1 + hits) / (1 + samples). See *Computer-Intensive Methods for Testing Hypotheses*,
    Noreen, 1989.
    """
    a, b = _scores(first, second, "the permutation test")
    _check_samples(samples)
    n = len(a)
    shape = (n,) + (1,) * (a.ndim - 1)
    d = statistic(a) - statistic(b)
    generator = np.random.default_rng(seed)
    exact = n <= EXACT
    rounds = 2**n if exact else samples
    found = np.empty(rounds)
    for i in range(rounds):
        swapped = (i >> np.arange(n)) & 1 if exact else generator.integers(0, 2, n)
        keep = swapped.reshape(shape) == 0
        found[i] = statistic(np.where(keep, a, b)) - statistic(np.where(keep, b, a))
    extreme = _as_large(found, d)
    return extreme / rounds if exact else (1 + extreme) / (1 + rounds)


def sign_test(first: Sequence[Any] | np.ndarray, second: Sequence[Any] | np.ndarray) -> float:
    """p of the hypothesis that either system wins an example as often; examples with equal scores count for none."""
    a, b = _scores(first, second, "the sign test")
    if a.ndim != 1:
        raise ValueError(f"the sign test compares one score per example; got shape {a.shape}")
    return _binomial(int((a > b).sum()), int((a < b).sum()))


def mcnemar(first: Sequence[Any] | np.ndarray, second: Sequence[Any] | np.ndarray) -> McNemar:
    """McNemar's test of two systems' right (1) and wrong (0) answers; exact, and χ² = (|b − c| − 1)² / (b + c).

    See *Note on the sampling error of the difference between correlated proportions*, McNemar, 1947.
    """
    a, b = _scores(first, second, "McNemar's test")
    if a.ndim != 1 or not np.isin(np.concatenate([a, b]), (0, 1)).all():
        raise ValueError("McNemar's test needs right (1) or wrong (0) for each example; for other scores: sign_test")
    only_a, only_b = int((a > b).sum()), int((a < b).sum())
    n = only_a + only_b
    chi2 = max(abs(only_a - only_b) - 1, 0) ** 2 / n if n else 0.0
    return McNemar(only_a, only_b, _binomial(only_a, only_b), chi2, math.erfc(math.sqrt(chi2 / 2)))


def _binomial(wins: int, losses: int) -> float:
    """Two-sided p of a fair coin: twice the tail, at most 1; 1 without any toss."""
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**n)


def _as_large(found: np.ndarray, d: float) -> int:
    # Sums in another order differ in the last bits; a difference equal to the observed one must count.
    slack = 1e-9 * max(abs(d), float(np.abs(found).max()))
    return int((np.abs(found) >= abs(d) - slack).sum())


def _scores(first: Any, second: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    check_paired(first, second, what, "scores")
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"{what} needs scores of one shape; got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(f"{what} needs numbers; got NaN or infinite scores")
    return a, b


def _check_samples(samples: int) -> None:
    if samples < 1:
        raise ValueError(f"a test needs at least 1 sample, given {samples}")
