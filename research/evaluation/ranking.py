"""How good rankings are: nDCG, recall, precision, MAP and MRR, as trec_eval has them."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from research.core.names import meant
from research.evaluation.text_metrics import Interval, bootstrap

MEASURES = ("ndcg@10", "recall@100", "p@10", "map", "mrr")

Run = Mapping[str, Mapping[str, float]]
"""Query -> document -> score."""

Judgements = Mapping[str, Mapping[str, int]]
"""Query -> document -> grade; above 0 is relevant, what is not judged is not."""


def ranking(
    run: Run, judgements: Judgements, measures: Sequence[str] = MEASURES, *, samples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """The mean of each measure over the judged queries, with its interval. Errors: see `per_query`."""
    values = per_query(run, judgements, measures)
    return {
        name: bootstrap(np.array(list(given.values())), samples=samples, seed=seed) for name, given in values.items()
    }


def per_query(run: Run, judgements: Judgements, measures: Sequence[str] = MEASURES) -> dict[str, dict[str, float]]:
    """Measure -> query -> value, as trec_eval and pytrec_eval compute it; a query without a relevant document has 0.

    Documents are ordered by score in single precision, equal ones by name backwards. With grade gᵢ at rank i:
    ndcg@k: Σ_{i≤k} gᵢ / log₂(i + 1) over the same of the best order; recall@k and p@k: the relevant among the first k
    over all relevant, and over k; map (mean average precision): the mean over all relevant of the precision at their
    ranks; mrr (mean reciprocal rank): 1 / the first relevant rank.

    Raises:
      ValueError: an unknown measure, no judgements, or a judged query without a ranking (which may be empty).
    """
    cuts = {name: _cut(name) for name in measures}
    if not judgements:
        raise ValueError("no judgements to hold the rankings to")
    if absent := [query for query in judgements if query not in run]:
        raise ValueError(f"{len(absent)} of {len(judgements)} judged queries have no ranking, {absent[0]!r} first")
    values: dict[str, dict[str, float]] = {name: {} for name in measures}
    for query, judged in judgements.items():
        grades = np.array([max(judged.get(name, 0), 0) for name in _ordered(run[query])], np.float64)
        best = np.array(sorted((grade for grade in judged.values() if grade > 0), reverse=True), np.float64)
        for name, (kind, k) in cuts.items():
            values[name][query] = _value(kind, k, grades, best) if best.size else 0.0
    return values


def _value(kind: str, k: int, grades: np.ndarray, best: np.ndarray) -> float:
    """One measure of the grades in their order and in the best order."""
    if kind == "ndcg":
        return _gain(grades[:k]) / _gain(best[:k])
    ranks = np.flatnonzero(grades) + 1
    if kind == "map":
        return float((np.arange(1, len(ranks) + 1) / ranks).sum() / len(best))
    if kind == "mrr":
        return 1 / float(ranks[0]) if ranks.size else 0.0
    return float((ranks <= k).sum()) / (k if kind == "p" else len(best))


def _gain(grades: np.ndarray) -> float:
    return float((grades / np.log2(np.arange(2, len(grades) + 2))).sum())


def _ordered(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda name: (np.float32(scores[name]), name), reverse=True)


def _cut(measure: str) -> tuple[str, int]:
    match = re.fullmatch(r"(ndcg|recall|p)@([1-9]\d*)|(map|mrr)", measure)
    if not match:
        raise ValueError(
            f"unknown measure {measure!r}{meant(measure, MEASURES)}; have ndcg@k, recall@k, p@k, map and mrr"
        )
    return (match[3], 0) if match[3] else (match[1], int(match[2]))
