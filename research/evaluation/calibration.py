"""Whether a model is right as often as it is sure: calibration error, Brier score, risk against coverage."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.core.names import meant

KINDS = ("width", "mass")


class Reliability(NamedTuple):
    """What a reliability diagram shows, one number per bin that holds an example, from unsure to sure.

    Attributes:
      confidence: [b] mean confidence. accuracy: [b] share of right answers. examples: [b] how many.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    examples: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error Σ_b n_b/n · |accuracy_b − confidence_b|."""
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.examples))

    @property
    def mce(self) -> float:
        """The largest gap of any bin."""
        return float(np.abs(self.accuracy - self.confidence).max())


class RiskCoverage(NamedTuple):
    """Share of wrong answers among those that a model of some least confidence gives.

    Attributes:
      coverage: [k] share of examples answered, growing. risk: [k] share of these that are wrong.
      area: mean risk over the examples, each taken at the coverage of its own confidence (AURC).
    """

    coverage: np.ndarray
    risk: np.ndarray
    area: float


def reliability(
    confidence: Sequence[float] | np.ndarray,
    correct: Sequence[Any] | np.ndarray,
    *,
    bins: int = 15,
    kind: str = "width",
) -> Reliability:
    """Examples in bins of like confidence: "width" cuts [0, 1] into equal parts, "mass" makes parts of equal size.

    Bins are half-open, (low, high]. Equal confidences always share a bin, so that the order of the examples has no
    influence; parts of equal size may then differ. See *On Calibration of Modern Neural Networks*, Guo et al.,
    https://arxiv.org/abs/1706.04599; *Verified Uncertainty Calibration*, https://arxiv.org/abs/1909.10155 (mass).

    confidence: [n] in 0..1. correct: [n], 1 or True for a right answer.
    """
    confidence, correct = _checked(confidence, correct)
    if bins < 1:
        raise ValueError(f"a reliability diagram needs at least 1 bin, given {bins}")
    if kind == "width":
        place = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1)
    elif kind == "mass":
        lower = np.searchsorted(np.sort(confidence), confidence)
        place = lower * bins // len(confidence)
    else:
        raise ValueError(f"unknown kind of bins {kind!r}{meant(kind, KINDS)}; have {list(KINDS)}")
    _, index, count = np.unique(place, return_inverse=True, return_counts=True)
    means = [np.bincount(index, weights=x) / count for x in (confidence, correct)]
    return Reliability(means[0], means[1], count)


def expected_calibration_error(
    confidence: Sequence[float] | np.ndarray,
    correct: Sequence[Any] | np.ndarray,
    *,
    bins: int = 15,
    kind: str = "width",
) -> float:
    """ECE of the bins of `reliability`."""
    return reliability(confidence, correct, bins=bins, kind=kind).ece


def error_by_chance(
    confidence: Sequence[float] | np.ndarray, *, bins: int = 15, kind: str = "width", samples: int = 200, seed: int = 0
) -> float:
    """The mean ECE of a model that is right as often as it is sure, with these confidences: what few examples cost.

    Right and wrong are drawn `samples` times. See *Mitigating Bias in Calibration Error Estimation*,
    https://arxiv.org/abs/2012.08668.
    """
    p, generator = np.asarray(confidence, np.float64), np.random.default_rng(seed)
    drawn = (generator.random(p.shape) < p for _ in range(samples))
    return float(np.mean([expected_calibration_error(p, correct, bins=bins, kind=kind) for correct in drawn]))


def brier_score(probabilities: Sequence[Any] | np.ndarray, outcomes: Sequence[int] | np.ndarray) -> float:
    """Mean squared error of probabilities: of [n] against outcomes 0 or 1, of [n, C] against labels, summed over C.

    See *Verification of Forecasts Expressed in Terms of Probability*, Brier, 1950 (the sum over all classes; of two
    classes it is twice the mean over one).
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim == 1:
        p, y = _checked(p, outcomes)
        return float(np.square(p - y).mean())
    labels = np.asarray(outcomes)
    if p.ndim != 2 or len(p) != len(labels) or not len(p):
        raise ValueError(
            f"the Brier score needs [n] or [n, C] probabilities and n labels; got {p.shape}, {len(labels)}"
        )
    if labels.min() < 0 or labels.max() >= p.shape[1]:
        raise ValueError(f"a label of {labels.min()}..{labels.max()} has no column; there are {p.shape[1]} classes")
    if not (p >= 0).all() or not np.allclose(p.sum(1), 1, atol=1e-4):
        raise ValueError("probabilities must be at least 0 and sum to 1 over the classes")
    return float(np.square(p - np.eye(p.shape[1])[labels]).sum(1).mean())


def risk_coverage(confidence: Sequence[float] | np.ndarray, correct: Sequence[Any] | np.ndarray) -> RiskCoverage:
    """What is gained by leaving unsure answers out: the risk at every confidence that occurs as a threshold.

    Examples of equal confidence are answered together. See *Selective Classification for Deep Neural Networks*,
    Geifman and El-Yaniv, https://arxiv.org/abs/1705.08500.
    """
    confidence, correct = _checked(confidence, correct)
    _, index, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    answered = np.cumsum(count)
    risk = np.cumsum(np.bincount(index, weights=1 - correct)) / answered
    return RiskCoverage(answered / len(confidence), risk, float(risk[index].mean()))


def diagram(curves: Mapping[str, Reliability]) -> dict[str, tuple[list[float], list[float]]]:
    """Series for `report.plots.curves`: accuracy over confidence of each model, and the diagonal of the perfect one."""
    found = {name: (r.confidence.tolist(), r.accuracy.tolist()) for name, r in curves.items()}
    return found | {"as sure as right": ([0.0, 1.0], [0.0, 1.0])}


def _checked(confidence: Any, correct: Any) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if p.ndim != 1 or p.shape != y.shape or not p.size:
        raise ValueError(f"calibration needs one confidence and one outcome per example; got {p.shape} and {y.shape}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"confidences are probabilities in 0..1; got {p.min():g} to {p.max():g}")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"outcomes are right (1) or wrong (0); got {sorted(set(y.tolist()) - {0, 1})[:3]}")
    return p, y
