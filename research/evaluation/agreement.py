"""How far raters agree beyond chance, 1 being perfect and 0 what chance gives: kappa of Cohen and of Fleiss, alpha."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from research.core.names import meant
from research.data.rankings import Votes, conflicting

# How far apart labels i and j of an ordered list are.
WEIGHTS = {
    "none": lambda i, j: (i != j).astype(np.float64),
    "linear": lambda i, j: np.abs(i - j).astype(np.float64),
    "quadratic": lambda i, j: np.square(i - j).astype(np.float64),
}
LEVELS = ("nominal", "ordinal", "interval", "ratio")


def cohen_kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    weights: str = "none",
    labels: Sequence[Hashable] | None = None,
) -> float:
    """κ = 1 − Σ w·o / Σ w·e of two raters: disagreement observed over disagreement expected from their own habits.

    o counts pairs of labels, e is what independent raters with the same habits would give. w is 1 off the diagonal
    ("none"), or the distance of the labels in `labels` ("linear") or its square ("quadratic"). See *Weighted kappa*,
    Cohen, 1968. NaN when no disagreement can be expected: both raters give one and the same label throughout.

    labels: all labels in order; needed with weights unless the labels are numbers, which are then taken in theirs.

    Raises:
      ValueError: unequal lengths, no rating, a label that `labels` lacks, or unknown weights.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"unknown weights {weights!r}{meant(weights, WEIGHTS)}; have {sorted(WEIGHTS)}")
    check_paired(first, second, "kappa", "ratings")
    found = set(first) | set(second)
    if labels is None:
        numbers = all(isinstance(label, int | float | np.number) for label in found)
        if weights != "none" and not numbers:
            raise ValueError(f"{weights} weights need the order of the labels: give labels=[...] with {_some(found)}")
        labels = sorted(found, key=None if numbers else str)  # type: ignore[type-var, arg-type]
    place = {label: i for i, label in enumerate(labels)}
    unknown = [label for label in found if label not in place]
    if unknown:
        raise ValueError(f"ratings hold {_some(unknown)}, not in labels {list(labels)}")
    observed = np.zeros((len(place), len(place)))
    np.add.at(observed, ([place[x] for x in first], [place[x] for x in second]), 1)
    w = WEIGHTS[weights](*np.indices(observed.shape))
    expected = np.outer(observed.sum(1), observed.sum(0)) / len(first)
    chance = (w * expected).sum()
    return float(1 - (w * observed).sum() / chance) if chance else math.nan


def krippendorff_alpha(ratings: Sequence[Sequence[Any]], level: str = "nominal") -> float:
    """α = 1 − Dₒ/Dₑ over any number of raters, each of whom may have left out any unit.

    Dₒ is the mean δ² between two ratings of one unit, Dₑ that between any two ratings that can be paired. δ² is 1 for
    unlike labels (nominal), (Σ n_g from c to k − (n_c + n_k)/2)² (ordinal), (c − k)² (interval) or
    ((c − k)/(c + k))² (ratio). See *Computing Krippendorff's Alpha-Reliability*, Krippendorff, 2011. NaN when all
    ratings that can be paired are equal: then chance cannot be told from agreement.

    ratings: [raters][units]; None or NaN where a rater gave nothing. Numbers, except for the nominal level.

    Raises:
      ValueError: an unknown level, rows of unequal length, no unit with two ratings, or labels that are no numbers.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}{meant(level, LEVELS)}; have {list(LEVELS)}")
    lengths = sorted({len(row) for row in ratings})
    if len(lengths) != 1:
        raise ValueError(f"every rater needs an entry per unit, None where there is none; got rows of {lengths}")
    units = [[x for x in unit if not _missing(x)] for unit in zip(*ratings, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    if not units:
        raise ValueError("alpha compares ratings of the same unit; no unit has two")
    found = {label for unit in units for label in unit}
    if level != "nominal" and not all(isinstance(label, int | float | np.number) for label in found):
        raise ValueError(f"the {level} level needs numbers as ratings; got {_some(found)}")
    labels = sorted(found, key=str) if level == "nominal" else sorted(found)
    place = {label: i for i, label in enumerate(labels)}
    coincidences = np.zeros((len(labels), len(labels)))
    for unit in units:
        counts = np.bincount([place[x] for x in unit], minlength=len(labels)).astype(np.float64)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    totals = coincidences.sum(0)
    distance = _distance(level, labels, totals)
    chance = (distance * np.outer(totals, totals)).sum() / (totals.sum() - 1)
    return float(1 - (distance * coincidences).sum() / chance) if chance else math.nan


def fleiss_kappa(ratings: Sequence[Sequence[Hashable]]) -> float:
    """κ = (P − Pₑ) / (1 − Pₑ) of raters who all rated every unit.

    P is the share of equal labels among all pairs of ratings of one unit, Pₑ = Σ p_c² that of labels drawn as often as
    each occurs. See *Measuring Nominal Scale Agreement among Many Raters*, Fleiss, 1971. NaN when one label is all that
    occurs.

    ratings: [raters][units].

    Raises:
      ValueError: fewer than two raters, no unit, rows of unequal length, or a missing rating (None or NaN).
    """
    lengths = sorted({len(row) for row in ratings})
    if len(ratings) < 2 or len(lengths) != 1 or not lengths[0]:
        raise ValueError(f"Fleiss' kappa needs at least two raters of the same units; got rows of {lengths}")
    if any(_missing(label) for row in ratings for label in row):
        raise ValueError("Fleiss' kappa needs a rating of every unit by every rater; Krippendorff's alpha does not")
    labels = sorted({label for row in ratings for label in row}, key=str)
    counts = np.array([[sum(row[u] == label for row in ratings) for label in labels] for u in range(lengths[0])])
    n = len(ratings)
    same = (counts * (counts - 1)).sum() / (counts.shape[0] * n * (n - 1))
    chance = np.square(counts.sum(0) / counts.sum()).sum()
    return float((same - chance) / (1 - chance)) if chance < 1 else math.nan


def _distance(level: str, labels: Sequence[Any], totals: np.ndarray) -> np.ndarray:
    """δ² between every two labels [C, C]; `totals` [C] says how often each was given."""
    if level == "nominal":
        return 1 - np.eye(len(labels))
    if level == "ordinal":  # how many ratings lie between two labels, both ends by half
        middle = np.cumsum(totals) - totals / 2
        return np.square(middle[:, None] - middle)
    values = np.array(labels, np.float64)
    gap = np.square(values[:, None] - values)
    if level == "interval":
        return gap
    if np.min(values) < 0:
        raise ValueError(f"the ratio level needs ratings of at least 0; got {np.min(values):g}")
    both = np.square(values[:, None] + values)
    return np.divide(gap, both, out=np.zeros_like(gap), where=both > 0)


def check_paired(first: Sequence[Any], second: Sequence[Any], what: str, items: str) -> None:
    """Raises ValueError unless both have one entry for each of the same examples, at least one."""
    if isinstance(first, str) or isinstance(second, str):
        raise ValueError(f"{what} needs lists of {items}, one per example; got a single text")
    if len(first) != len(second) or len(first) == 0:
        raise ValueError(f"{what} needs as many {items} of both, at least one; got {len(first)} and {len(second)}")


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def _some(labels: Any) -> str:
    named = sorted(map(repr, labels))
    return ", ".join(named[:5]) + (", ..." if len(named) > 5 else "")


def of_votes(votes: Votes, labellers: Sequence[str]) -> dict[str, Any]:
    """How far labellers agree on pairs: alpha over all verdicts, Fleiss' kappa over the pairs that all have judged.

    Raises:
      ValueError: one labeller only, or no pair that two have judged.
    """
    if len(labellers) < 2:
        raise ValueError(f"agreement needs at least two labellers, given {list(labellers)}")
    shared = {pair: said for pair, said in votes.items() if len(said) > 1}
    full = [said for said in votes.values() if len(said) == len(labellers)]
    if not shared:
        raise ValueError(f"agreement needs a pair that two labellers have judged; {list(labellers)} share none")
    same = sum(len(set(said.values())) == 1 for said in shared.values())
    return {
        "pairs judged by two or more": len(shared),
        "of one mind": same / len(shared),
        "conflicts": len(conflicting(votes)),
        "Krippendorff's alpha": krippendorff_alpha([[said.get(who) for said in votes.values()] for who in labellers]),
        "Fleiss' kappa": fleiss_kappa([[said[who] for said in full] for who in labellers]) if full else None,
    }
