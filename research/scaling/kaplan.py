"""Kaplan's power laws: loss limited by parameters, by tokens, by compute, and by parameters and tokens together.

    L(N) = (Nc / N)^αN      L(D) = (Dc / D)^αD      L(C) = (Cc / C)^αC      L(N, D) = ((Nc / N)^(αN / αD) + Dc / D)^αD

N parameters · D tokens · C FLOPs · L loss. See *Scaling Laws for Neural Language Models*, Kaplan et al.,
https://arxiv.org/abs/2001.08361. None of them has a floor: loss falls to zero, so they hold far above it only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.special import logsumexp

from research.scaling.laws import Points

PF_DAY = 1e15 * 86_400  # FLOPs


@dataclass(frozen=True)
class PowerLaw:
    """L(x) = (scale / x)^exponent."""

    scale: float
    exponent: float

    def loss(self, x: Any) -> Any:
        """L(x)."""
        return (self.scale / x) ** self.exponent


@dataclass(frozen=True)
class Joint:
    """L(N, D) = ((Nc / N)^(αN / αD) + Dc / D)^αD, as the two power laws that it becomes without the other limit."""

    parameters: PowerLaw
    tokens: PowerLaw

    def loss(self, parameters: Any, tokens: Any) -> Any:
        """L(N, D)."""
        n, d = self.parameters, self.tokens
        return ((n.scale / parameters) ** (n.exponent / d.exponent) + d.scale / tokens) ** d.exponent


# Figure 1; of C the compute-efficient minimum, which the paper counts in days of 10¹⁵ FLOPs a second.
PUBLISHED: Mapping[str, PowerLaw] = {
    "N": PowerLaw(8.8e13, 0.076),
    "D": PowerLaw(5.4e13, 0.095),
    "C": PowerLaw(2.3e8 * PF_DAY, 0.050),
}


def limits(points: Points) -> dict[str, PowerLaw]:
    """L(N), L(D), L(C): each through the trainings that no other beats with as much or less of it.

    Raises:
      ValueError: fewer than two such trainings.
    """
    kinds = {"N": points.parameters, "D": points.tokens, "C": points.flops}
    return {name: _line(name, x, points.loss) for name, x in kinds.items()}


def _line(name: str, x: np.ndarray, loss: np.ndarray) -> PowerLaw:
    order = np.lexsort((loss, x))
    before = np.concatenate([[np.inf], np.minimum.accumulate(loss[order])[:-1]])
    best = order[loss[order] < before]
    if len(np.unique(x[best])) < 2:
        raise ValueError(f"L({name}) has 2 parameters to fit and there are {len(best)} trainings that no other beats")
    slope, intercept = np.polyfit(np.log(x[best]), np.log(loss[best]), 1)
    return PowerLaw(float(np.exp(-intercept / slope)), float(-slope))


def joint(points: Points) -> Joint:
    """L(N, D) of least squares in log L, from several starts.

    Raises:
      ValueError: fewer points than the four parameters.
    """
    points.require(4, "L(N, D) = ((Nc / N)^(αN / αD) + Dc / D)^αD")
    n, d, observed = np.log(points.parameters), np.log(points.tokens), np.log(points.loss)

    # Exponents as logarithms stay positive; scales relative to the middle of the points.
    def residuals(theta: np.ndarray) -> np.ndarray:
        nc, dc = theta[0] + n.mean(), theta[1] + d.mean()
        an, ad = np.exp(theta[2:])
        return ad * logsumexp([an / ad * (nc - n), dc - d], axis=0) - observed

    starts = [(0.0, 0.0, np.log(an), np.log(ad)) for an in (0.05, 0.15, 0.45) for ad in (0.05, 0.15, 0.45)]
    best = min((least_squares(residuals, start) for start in starts), key=lambda end: end.cost)
    nc, dc = np.exp(best.x[0] + n.mean()), np.exp(best.x[1] + d.mean())
    an, ad = np.exp(best.x[2:])
    return Joint(PowerLaw(float(nc), float(an)), PowerLaw(float(dc), float(ad)))
