"""Rankings made one."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def reciprocal_rank(rankings: Sequence[Sequence[T]], k: float = 60) -> list[tuple[T, float]]:
    """All that is ranked, by Σ over the rankings that have it of 1 / (k + rank), ranks from 1; the best first.

    See *Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods*, Cormack et al., 2009.
    """
    scores: defaultdict[T, float] = defaultdict(float)
    for ranking in rankings:
        for rank, one in enumerate(ranking, start=1):
            scores[one] += 1 / (k + rank)
    return sorted(scores.items(), key=lambda item: -item[1])
