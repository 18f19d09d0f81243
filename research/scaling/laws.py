"""Loss as a function of parameters and tokens: Chinchilla's parametric law, its fit, and what it says is optimal.

    L(N, D) = E + A / N^α + B / D^β        C = 6 N D floating-point operations

N parameters · D tokens · C FLOPs · L loss in nats per token
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy.optimize import least_squares, minimize
from scipy.special import logsumexp

from research.core.names import meant

FLOPS = 6.0  # per parameter and token, forward and backward

# The starts of *Training Compute-Optimal Large Language Models*, appendix D.3: α, β, log E, log A, log B.
STARTS = (
    (0.0, 0.5, 1.0, 1.5, 2.0),
    (0.0, 0.5, 1.0, 1.5, 2.0),
    (-1.0, -0.5, 0.0, 0.5, 1.0),
    (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
    (0.0, 5.0, 10.0, 15.0, 20.0, 25.0),
)


@dataclass(frozen=True)
class Points:
    """Trainings: parameters N, tokens D, loss L and FLOPs C, arrays [n]; C is 6 N D where it is not given.

    Raises:
      ValueError: unequal lengths, or a number that is not positive and finite; names the first and where it stands.
    """

    parameters: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray
    flops: Any = None

    def __post_init__(self) -> None:
        given = {name: np.asarray(array, np.float64) for name, array in vars(self).items() if array is not None}
        shapes = {name: array.shape for name, array in given.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"points need as many of each; given {shapes}")
        given.setdefault("flops", FLOPS * given["parameters"] * given["tokens"])
        for name, array in given.items():
            object.__setattr__(self, name, array)
        for name, array in vars(self).items():
            if (bad := np.flatnonzero(~(np.isfinite(array) & (array > 0)))).size:
                raise ValueError(
                    f"{name} must be positive and finite; point {bad[0]} of {len(array)} has {array[bad[0]]}"
                )

    def __len__(self) -> int:
        return len(self.parameters)

    def take(self, index: Any) -> "Points":
        """The points at these indices, or where a mask is true."""
        return Points(*(array[index] for array in vars(self).values()))

    def require(self, count: int, what: str) -> None:
        """Refuses fewer points than a fit has parameters.

        Raises:
          ValueError: says how many there are.
        """
        if len(self) < count:
            raise ValueError(f"{what} has {count} parameters to fit and there are {len(self)} points")


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^α + B / D^β."""

    A: float
    B: float
    E: float
    alpha: float
    beta: float

    def loss(self, parameters: Any, tokens: Any) -> Any:
        """L(N, D)."""
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta

    def optimal(self, flops: Any, per: float = FLOPS) -> "Optimum":
        """The N and D of least loss for C = per · N · D: with G = (αA / βB)^(1 / (α + β)),
        N = G (C / per)^(β / (α + β)) and D = (C / per) / N."""
        both = self.alpha + self.beta
        scale = (self.alpha * self.A / (self.beta * self.B)) ** (1 / both)
        parameters = scale * (flops / per) ** (self.beta / both)
        tokens = flops / per / parameters
        return Optimum(parameters, tokens, self.loss(parameters, tokens))

    @property
    def exponents(self) -> tuple[float, float]:
        """a and b of N ∝ C^a and D ∝ C^b at the optimum."""
        both = self.alpha + self.beta
        return self.beta / both, self.alpha / both


class Optimum(NamedTuple):
    """What to train with a budget, and the loss it ends at; numbers or arrays."""

    parameters: Any
    tokens: Any
    loss: Any


class Fit(NamedTuple):
    """A fitted law and the objective at it: Σ Huber over the points."""

    law: Law
    objective: float


def parametric(points: Points, *, delta: float = 1e-3, tries: int = 8, starts: Any = None) -> Fit:
    """Chinchilla's approach 3: the law of least Σ Huber_δ(log L̂ - log L), log L̂ by logsumexp, by L-BFGS.

    See *Training Compute-Optimal Large Language Models*, Hoffmann et al., https://arxiv.org/abs/2203.15556, and
    *Chinchilla Scaling: A replication attempt*, Besiroglu et al., https://arxiv.org/abs/2404.10102.

    tries: L-BFGS goes from so many of the 4,500 published starts, those of the least objective; the best end counts.
    starts: laws to go from instead.

    Raises:
      ValueError: fewer points than the five parameters.
    """
    points.require(5, "L(N, D) = E + A / N^α + B / D^β")
    objective = _Objective(points, delta)
    if starts is None:
        alpha, beta, e, a, b = np.array(list(product(*STARTS))).T
        grid = objective.inside(np.stack([a, b, e, alpha, beta], axis=1))
        # In parts, so that each fits the cache.
        first = np.concatenate([objective.value(part) for part in np.array_split(grid, 90)])
        grid = grid[np.argsort(first, kind="stable")[:tries]]
    else:
        grid = objective.inside(np.array([_logs(law) for law in starts]))
    best = min((_descend(objective, start) for start in grid), key=lambda end: end.fun)
    a, b, e, alpha, beta = objective.outside(best.x)
    return Fit(Law(*map(float, (np.exp(a), np.exp(b), np.exp(e), alpha, beta))), float(best.fun))


def objective(law: Law, points: Points, delta: float = 1e-3) -> float:
    """Σ Huber_δ(log L̂ - log L) of a law on points."""
    at = _Objective(points, delta)
    return float(at.value(at.inside(np.array([_logs(law)])))[0])


class _Objective:
    """The objective in (a, b, log E, α, β) with log N and log D measured from their means, where it is rounder."""

    def __init__(self, points: Points, delta: float) -> None:
        n, d = np.log(points.parameters), np.log(points.tokens)
        self.middle = n.mean(), d.mean()
        self.n, self.d, self.observed = n - self.middle[0], d - self.middle[1], np.log(points.loss)
        self.delta = delta

    def inside(self, theta: np.ndarray) -> np.ndarray:
        """From log A, log B, ... [..., 5]."""
        moved = theta.copy()
        moved[..., :2] -= theta[..., 3:] * np.array(self.middle)
        return moved

    def outside(self, theta: np.ndarray) -> np.ndarray:
        """Back to log A, log B, ..."""
        moved = theta.copy()
        moved[..., :2] += theta[..., 3:] * np.array(self.middle)
        return moved

    def _terms(self, theta: np.ndarray) -> np.ndarray:
        a, b, e, alpha, beta = np.moveaxis(theta, -1, 0)[..., None]
        return np.stack(np.broadcast_arrays(a - alpha * self.n, b - beta * self.d, e))

    def value(self, theta: np.ndarray) -> np.ndarray:
        """theta [..., 5] -> [...]."""
        far = np.abs(logsumexp(self._terms(theta), axis=0) - self.observed)
        return np.where(far <= self.delta, 0.5 * far**2, self.delta * (far - 0.5 * self.delta)).sum(-1)

    def slope(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient at one theta [5]."""
        terms = self._terms(theta)
        predicted = logsumexp(terms, axis=0)
        off = predicted - self.observed
        far = np.abs(off)
        value = np.where(far <= self.delta, 0.5 * far**2, self.delta * (far - 0.5 * self.delta)).sum()
        shares = np.exp(terms - predicted) * np.clip(off, -self.delta, self.delta)
        gradient = [*shares.sum(1), -(shares[0] * self.n).sum(), -(shares[1] * self.d).sum()]
        return float(value), np.array(gradient)


def _logs(law: Law) -> list[float]:
    return [np.log(law.A), np.log(law.B), np.log(law.E), law.alpha, law.beta]


def _descend(objective: _Objective, start: np.ndarray) -> Any:
    """L-BFGS on the objective in units of δ², where its stopping rules mean something."""
    unit = objective.delta**2

    def scaled(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective.slope(theta)
        return value / unit, gradient / unit

    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-6, "maxcor": 20}
    end = minimize(scaled, start, jac=True, method="L-BFGS-B", options=options)
    end.fun *= unit
    return end


Estimate: TypeAlias = Callable[[Points], Any]


def bootstrap(points: Points, estimate: Estimate, *, samples: int = 200, seed: int = 0) -> list[Any]:
    """`estimate` of `samples` draws of as many points with replacement; draws that it refuses (too few different
    budgets, say) are drawn anew, at most as often again.

    Raises:
      ValueError: more than half of the draws are refused; says why the last was.
    """
    rng = np.random.default_rng(seed)
    found: list[Any] = []
    reason: Exception | None = None
    for _ in range(2 * samples):
        try:
            found.append(estimate(points.take(rng.integers(0, len(points), len(points)))))
        except ValueError as error:
            reason = error
        if len(found) == samples:
            return found
    raise ValueError(f"only {len(found)} of {2 * samples} bootstrap draws could be fitted; the last: {reason}")


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The central percentile interval of bootstrapped numbers."""
    low, high = np.quantile(np.asarray(values, np.float64), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def tied(points: Points) -> Law:
    """The law with α = β, of least squares in L: losses along any constant D / N fall in parallel.

    See *Language models scale reliably with over-training and on downstream tasks*, Gadre et al., equation 4 (there
    with C and M = D / N, and η = α / 2), https://arxiv.org/abs/2403.08540.

    Raises:
      ValueError: fewer points than the four parameters.
    """
    points.require(4, "L(N, D) = E + A / N^α + B / D^α")
    n, d = np.log(points.parameters), np.log(points.tokens)

    def residuals(theta: np.ndarray) -> np.ndarray:
        a, b, e, alpha = theta
        return e + np.exp(a - alpha * (n - n.mean())) + np.exp(b - alpha * (d - d.mean())) - points.loss

    starts = [(0.0, 0.0, points.loss.min() / 2, alpha) for alpha in (0.1, 0.3, 0.6)]
    best = min((least_squares(residuals, start, xtol=1e-12, ftol=1e-12) for start in starts), key=lambda end: end.cost)
    a, b, e, alpha = best.x
    return Law(*map(float, (np.exp(a + alpha * n.mean()), np.exp(b + alpha * d.mean()), e, alpha, alpha)))


class Known(NamedTuple):
    """A law that others may use: where it is from, its bootstrapped draws, and the FLOPs of the points behind it."""

    law: Law
    origin: str
    draws: Sequence[Law] = ()
    flops: tuple[float, float] | None = None


PUBLISHED: Mapping[str, Known] = {
    "hoffmann": Known(
        Law(406.4, 410.7, 1.69, 0.34, 0.28), "Hoffmann et al. 2022, equation 10, rounded; arXiv:2203.15556"
    ),
    "besiroglu": Known(
        Law(482.01, 2085.43, 1.8172, 0.3478, 0.3658),
        "Besiroglu et al. 2024, a refit of the same runs; arXiv:2404.10102",
    ),
}


def known(name: str) -> Known:
    """A published law by its name, or that of a file that `experiments.fit_scaling_laws` wrote.

    Raises:
      ValueError: neither, with the nearest name.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    if not Path(name).is_file():
        raise ValueError(f"no law {name!r}{meant(name, PUBLISHED)}; have {sorted(PUBLISHED)}, or give a laws.json")
    told = json.loads(Path(name).read_text(encoding="utf-8"))
    try:
        found = told["parametric"]
        draws = [Law(*row) for row in found["draws"]]
        return Known(Law(**found["law"]), told["origin"], draws, tuple(told["flops"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{name} is no file of experiments.fit_scaling_laws: {error!r}") from None
