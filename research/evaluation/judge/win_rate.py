"""Win rates, how much of them is length, and how far a judge agrees with people.

A verdict is "A", "B", "tie", or None where there is none; pairs without a verdict are left out.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from research.evaluation.agreement import check_paired, cohen_kappa, krippendorff_alpha
from research.evaluation.text_metrics import Interval, bootstrap

VERDICTS = ("A", "B", "tie")
RIDGE = 1e-3  # keeps the fit finite when one side wins all; moves a rate of mixed verdicts by less than 0.01

Verdict = str | None


class LengthControlled(NamedTuple):
    """The win rate in per cent at equal length, and the effect of length on the log odds (0: none)."""

    win_rate: Interval
    effect: float


class Agreement(NamedTuple):
    """How far two judges of the same pairs agree.

    Attributes:
      compared: pairs that both judged. share: of these, equal verdicts.
      share_decided: equal verdicts among the pairs that neither calls a tie; NaN if there is none.
      kappa: Cohen's. alpha: Krippendorff's, nominal.
    """

    compared: int
    share: float
    share_decided: float
    kappa: float
    alpha: float


def win_rate(verdicts: Sequence[Verdict], system: str = "A") -> Interval:
    """100 · (wins + ties / 2) / decided pairs of one system, "A" or "B", with its bootstrap interval.

    Raises:
      ValueError: another system, something that is no verdict, or no verdict at all.
    """
    return bootstrap(100 * _points(verdicts, system)[1])


def longer_wins(verdicts: Sequence[Verdict], lengths_a: Sequence[int], lengths_b: Sequence[int]) -> Interval:
    """Share of wins by the longer answer, among pairs of unequal length that are no tie; 0.5 means no bias.

    Raises:
      ValueError: unequal numbers of verdicts and lengths, or no such pair.
    """
    kept, points = _points(verdicts, "A")
    gaps = _gaps(verdicts, lengths_a, lengths_b)[kept]
    chosen = (points != 0.5) & (gaps != 0)
    if not chosen.any():
        raise ValueError(f"no decided pair of unequal length among {len(verdicts)}: length bias is not defined")
    return bootstrap((points[chosen] == (gaps[chosen] > 0)).astype(np.float64))


def length_controlled(
    verdicts: Sequence[Verdict],
    lengths_a: Sequence[int],
    lengths_b: Sequence[int],
    system: str = "A",
    *,
    samples: int = 1000,
    seed: int = 0,
) -> LengthControlled:
    """100 · σ(β₀) of the fit  p(system wins) = σ(β₀ + β₁ tanh(Δ / sd(Δ))),  Δ its length minus the other's.

    Ties are half a win. This is the length term of *Length-Controlled AlpacaEval*, Dubois et al.,
    https://arxiv.org/abs/2404.04475, without its difficulty of each instruction, which takes many systems to fit.
    """
    kept, points = _points(verdicts, system)
    gaps = _gaps(verdicts, lengths_a, lengths_b)[kept] * (1 if system == "A" else -1)
    scale = gaps.std()
    x = np.stack([np.ones(len(gaps)), np.tanh(gaps / scale) if scale else np.zeros(len(gaps))], axis=1)
    bias, effect = _logistic(x, points)
    generator = np.random.default_rng(seed)
    draws = [generator.integers(0, len(x), len(x)) for _ in range(samples)]
    rates = [_percent(_logistic(x[chosen], points[chosen])[0]) for chosen in draws]
    low, high = np.quantile(rates, [0.025, 0.975])
    return LengthControlled(Interval(float(low), _percent(bias), float(high)), float(effect))


def agreement(judge: Sequence[Verdict], other: Sequence[Verdict]) -> Agreement:
    """A judge's verdicts against those of people, or of another judge, on the same pairs.

    Raises:
      ValueError: unequal numbers of verdicts, or no pair that both judged.
    """
    check_paired(judge, other, "agreement", "verdicts")
    _check([*judge, *other])
    both = [(a, b) for a, b in zip(judge, other, strict=True) if a is not None and b is not None]
    if not both:
        raise ValueError(f"no pair of {len(judge)} has verdicts of both judges")
    first, second = [a for a, _ in both], [b for _, b in both]
    decided = [a == b for a, b in both if "tie" not in (a, b)]
    return Agreement(
        compared=len(both),
        share=sum(a == b for a, b in both) / len(both),
        share_decided=sum(decided) / len(decided) if decided else math.nan,
        kappa=cohen_kappa(first, second),
        alpha=krippendorff_alpha([first, second]),
    )


def _points(verdicts: Sequence[Verdict], system: str) -> tuple[list[int], np.ndarray]:
    """Which pairs have a verdict, and 1, 0.5 or 0 for each of them."""
    if system not in ("A", "B"):
        raise ValueError(f"unknown system {system!r}; have ['A', 'B']")
    _check(verdicts)
    kept = [i for i, v in enumerate(verdicts) if v is not None]
    if not kept:
        raise ValueError(f"none of {len(verdicts)} pairs has a verdict")
    return kept, np.array([0.5 if verdicts[i] == "tie" else float(verdicts[i] == system) for i in kept])


def _check(verdicts: Sequence[Verdict]) -> None:
    strange = [v for v in verdicts if v is not None and v not in VERDICTS]
    if strange:
        raise ValueError(f"{strange[0]!r} is no verdict; have {list(VERDICTS)} and None")


def _gaps(verdicts: Sequence[Verdict], lengths_a: Sequence[int], lengths_b: Sequence[int]) -> np.ndarray:
    if not len(verdicts) == len(lengths_a) == len(lengths_b):
        raise ValueError(f"{len(verdicts)} verdicts but {len(lengths_a)} and {len(lengths_b)} lengths")
    return np.asarray(lengths_a, np.float64) - np.asarray(lengths_b, np.float64)


def _logistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """β [k] of the ridge logistic regression of y [n] in 0..1 on x [n, k], by Newton's method."""
    beta = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ beta))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(len(beta))
        step = np.linalg.solve(hessian, x.T @ (y - p) - RIDGE * beta)
        # Far from the optimum of separable verdicts the quadratic model promises too much.
        beta += step * min(1.0, 4 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return beta


def _percent(logit: float) -> float:
    return float(100 / (1 + np.exp(-logit)))
