"""What the best of n answers by one score is worth by another, and how far that lies from the model that wrote them.

P prompts · N answers to each
"""

import math
from typing import Literal

import numpy as np

LAWS = ("best_of_n", "rl")


def best_of_n_kl(n: int) -> float:
    """KL(best of n || model) ≤ ln n − (n − 1)/n, nats of a whole answer; equal where no two answers are the same.

    *Learning to summarize from human feedback*, Stiennon et al., 2020, https://arxiv.org/abs/2009.01325.
    """
    _require_n(n)
    return math.log(n) - (n - 1) / n


def best_of_n(scores: np.ndarray, values: np.ndarray, n: int) -> float:
    """The expected value of the answer with the highest score among n, mean over prompts, from N ≥ n answers to each.

    Every subset of n answers counts: of N sorted by score the i-th (from 0) is the best of C(i, n − 1) of the C(N, n)
    subsets. Of equal scores the later answer is better. *WebGPT*, Nakano et al., 2021, appendix I,
    https://arxiv.org/abs/2112.09332.

    Args:
      scores, values: [P, N]; what is chosen by, and what is wanted of the chosen one.

    Raises:
      ValueError: shapes that differ or are not [P, N], n below 1 or above N.
    """
    _require_n(n)
    scores, values = np.asarray(scores, np.float64), np.asarray(values, np.float64)
    if scores.ndim != 2 or scores.shape != values.shape:
        raise ValueError(f"expected scores and values [P, N] of one shape, given {scores.shape} and {values.shape}")
    if n > scores.shape[1]:
        raise ValueError(f"the best of {n} needs {n} answers to each prompt; there are {scores.shape[1]}")
    order = np.argsort(scores, axis=1, kind="stable")
    chances = np.array([math.comb(i, n - 1) for i in range(scores.shape[1])], object) / math.comb(scores.shape[1], n)
    return float((np.take_along_axis(values, order, axis=1) @ chances.astype(np.float64)).mean())


def over_optimisation(kl: np.ndarray, gain: np.ndarray, law: Literal["best_of_n", "rl"]) -> tuple[float, float]:
    """(α, β) of the law that a gain follows in d = √KL: d (α − β d) for best-of-n, d (α − β ln d) for RL.

    Least squares; where β > 0, optimising further loses in the end. *Scaling Laws for Reward Model Overoptimization*,
    Gao et al., 2022, https://arxiv.org/abs/2210.10760.

    Args:
      kl: [K] nats, above 0. gain: [K] reward above that of the untouched model.

    Raises:
      ValueError: an unknown law, a KL that is not above 0, or fewer than two points.
    """
    if law not in LAWS:
        raise ValueError(f"unknown law {law!r}; have {LAWS}")
    d, gain = np.sqrt(np.asarray(kl, np.float64)), np.asarray(gain, np.float64)
    if d.ndim != 1 or d.shape != gain.shape or len(d) < 2 or not (d > 0).all():
        raise ValueError(f"expected two or more KL above 0 and a gain for each, given {kl!r} and {gain!r}")
    slope = d * d if law == "best_of_n" else d * np.log(d)
    (alpha, beta), *_ = np.linalg.lstsq(np.stack([d, -slope], axis=1), gain, rcond=None)
    return float(alpha), float(beta)


def _require_n(n: int) -> None:
    if n < 1:
        raise ValueError(f"n must be at least 1, given {n}")
