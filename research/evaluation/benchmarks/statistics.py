"""Numbers of a whole test set that no mean over its items gives: correlations and F₁, of rows [n, 2] (gold, predicted).

They are 0 where they are not defined: all of one side alike, no item of a class predicted or there.
"""

import numpy as np
from scipy.stats import rankdata


def matthews(rows: np.ndarray) -> float:
    """Matthews' correlation of labels; of more than two classes the R_K that equals it for two.

    (n·hits − Σ g_k p_k) / √((n² − Σ p_k²)(n² − Σ g_k²)) of the counts g, p of the classes. See *Comparing two
    K-category assignments by a K-category correlation coefficient*, Gorodkin, 2004.
    """
    gold, predicted = rows[:, 0], rows[:, 1]
    classes = np.unique(rows)[:, None]
    g, p = (gold == classes).sum(1).astype(np.float64), (predicted == classes).sum(1).astype(np.float64)
    n = float(len(rows))
    spread = (n**2 - (p**2).sum()) * (n**2 - (g**2).sum())
    return float((n * (gold == predicted).sum() - (g * p).sum()) / np.sqrt(spread)) if spread > 0 else 0.0


def f1(rows: np.ndarray) -> float:
    """F₁ of class 1, 2·hits / (gold + predicted)."""
    return _f1(rows, 1)


def macro_f1(rows: np.ndarray) -> float:
    """Mean F₁ of the classes that are there or predicted."""
    return float(np.mean([_f1(rows, value) for value in np.unique(rows)]))


def pearson(rows: np.ndarray) -> float:
    """Pearson's correlation Σ x y / √(Σ x² Σ y²) of both columns less their means."""
    if (rows == rows[0]).all(0).any():
        return 0.0
    x, y = (rows - rows.mean(0)).T
    return float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))


def spearman(rows: np.ndarray) -> float:
    """Pearson's correlation of ranks; equal values share the mean of theirs."""
    return pearson(rankdata(rows, axis=0))


def _f1(rows: np.ndarray, value: float) -> float:
    gold, predicted = rows[:, 0] == value, rows[:, 1] == value
    either = gold.sum() + predicted.sum()
    return float(2 * (gold & predicted).sum() / either) if either else 0.0
