"""The best model for every budget, read off trainings without a formula of the loss: Chinchilla's approaches 1 and 2.

N parameters · D tokens · C FLOPs · L loss. See *Training Compute-Optimal Large Language Models*, Hoffmann et al.,
sections 3.1 and 3.2, https://arxiv.org/abs/2203.15556.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from research.scaling.laws import FLOPS, Points

Numbers: TypeAlias = Sequence[float] | np.ndarray

# Sizes that differ by less are one size; read off a figure, they are noisy.
SAME = 0.005


@dataclass(frozen=True)
class Frontier:
    """N = scale · C ^ a through the best sizes of budgets, and so D = C / (6 scale) · C ^ (1 - a) at C = 6 N D.

    Attributes:
      flops, parameters, loss: the best size of each budget and what it reaches [n].
      scale, a: of the line through their logarithms.
    """

    flops: np.ndarray
    parameters: np.ndarray
    loss: np.ndarray
    scale: float
    a: float

    @property
    def b(self) -> float:
        """The exponent of D."""
        return 1 - self.a

    def optimal(self, flops: float) -> tuple[float, float]:
        """N and D for C."""
        parameters = self.scale * flops**self.a
        return parameters, flops / FLOPS / parameters


class Parabola(NamedTuple):
    """L = c0 + c1 x + c2 x², x = log N, through the trainings of one budget; its lowest point is (parameters, loss)."""

    flops: float
    points: Points
    coefficients: tuple[float, float, float]
    parameters: float
    loss: float

    def at(self, parameters: np.ndarray) -> np.ndarray:
        """L of other sizes."""
        c0, c1, c2 = self.coefficients
        x = np.log(parameters)
        return c0 + c1 * x + c2 * x * x


def through(flops: Numbers, parameters: Numbers, loss: Numbers, what: str) -> Frontier:
    """The line through the best sizes.

    Raises:
      ValueError: fewer than two different budgets.
    """
    c, n = np.asarray(flops, np.float64), np.asarray(parameters, np.float64)
    if len(np.unique(c)) < 2:
        raise ValueError(
            f"{what} needs at least 2 budgets whose best size lies between others; found {len(np.unique(c))}"
        )
    a, log_scale = np.polyfit(np.log(c), np.log(n), 1)
    return Frontier(c, n, np.asarray(loss, np.float64), float(np.exp(log_scale)), float(a))


def envelope(points: Points, *, count: int = 1500) -> Frontier:
    """Approach 1: at each of `count` budgets the size of the lowest loss, losses of a size joined by straight lines
    in (log C, log L).

    Only budgets where a size between two others is best count: elsewhere a size that was not trained may be better.

    Raises:
      ValueError: fewer than three sizes, or no two such budgets.
    """
    groups = sizes(points)
    if len(groups) < 3:
        raise ValueError(f"the envelope needs at least 3 sizes; the {len(points)} points have {len(groups)}")
    budgets = np.geomspace(points.flops.min(), points.flops.max(), count)
    reached = np.full((len(groups), count), np.inf)
    for row, group in zip(reached, groups, strict=True):
        c, same = np.unique(group.flops, return_inverse=True)
        loss = np.bincount(same, group.loss) / np.bincount(same)  # of several seeds the mean
        inside = (budgets >= c[0]) & (budgets <= c[-1])
        row[inside] = np.exp(np.interp(np.log(budgets[inside]), np.log(c), np.log(loss)))
    best = reached.argmin(0)
    known = np.isfinite(reached)
    rank = np.arange(len(groups))[:, None]
    between = (known & (rank < best)).any(0) & (known & (rank > best)).any(0)
    n = np.array([np.exp(np.log(group.parameters).mean()) for group in groups])
    at = np.flatnonzero(between)
    return through(budgets[at], n[best[at]], reached[best[at], at], "the envelope")


def isoflop(points: Points, budgets: Sequence[float], *, tolerance: float = 0.1) -> tuple[Frontier, list[Parabola]]:
    """Approach 2: a parabola in log N through the trainings of each budget, and a line through their lowest points.

    tolerance: a training belongs to a budget from which its FLOPs differ by at most this share. Budgets with fewer
    than three sizes, or whose parabola has no lowest point between its sizes, are left out.

    Raises:
      ValueError: fewer than two budgets are left.
    """
    found = []
    for budget in budgets:
        near = points.take(np.abs(points.flops / budget - 1) <= tolerance)
        if len(near) and len(sizes(near)) >= 3 and (fitted := _parabola(budget, near)) is not None:
            found.append(fitted)
    flops, parameters, loss = ([getattr(one, name) for one in found] for name in ("flops", "parameters", "loss"))
    return through(flops, parameters, loss, "the IsoFLOP fit"), found


def _parabola(budget: float, points: Points) -> Parabola | None:
    x = np.log(points.parameters)
    middle = x.mean()
    c2, c1, c0 = np.polyfit(x - middle, points.loss, 2)
    if c2 <= 0:
        return None
    lowest = middle - c1 / (2 * c2)
    if not x.min() < lowest < x.max():
        return None
    uncentred = (float(c0 - c1 * middle + c2 * middle**2), float(c1 - 2 * c2 * middle), float(c2))
    return Parabola(budget, points, uncentred, float(np.exp(lowest)), float(c0 - c1**2 / (4 * c2)))


def sizes(points: Points) -> list[Points]:
    """The points of each size, ascending."""
    order = np.argsort(points.parameters, kind="stable")
    n = points.parameters[order]
    cuts = np.flatnonzero(np.diff(np.log(n)) > SAME) + 1
    return [points.take(index) for index in np.split(order, cuts)]
