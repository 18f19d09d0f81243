"""BLEU and chrF of translations, one reference each: the numbers of sacreBLEU's defaults, each with an interval.

Both are ratios of counts over the whole corpus, so the interval resamples sentences and counts anew. See *BLEU: a
Method for Automatic Evaluation of Machine Translation*, Papineni et al., 2002; *A Call for Clarity in Reporting BLEU
Scores*, Post, https://arxiv.org/abs/1804.08771 (which tokens, which smoothing); *chrF: character n-gram F-score for
automatic MT evaluation*, Popović, 2015.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from research.evaluation.text_metrics import Interval, check_pairs

WORDS, CHARACTERS, BETA = 4, 6, 2.0  # longest n-grams of BLEU and chrF; recall counts twice in chrF
# The tokens of mteval-v13a: ASCII punctuation stands alone, but not a period or comma between two digits.
_SPLITS = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}


def words(text: str) -> list[str]:
    """The tokens that BLEU compares (mteval-v13a)."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES.items():
        text = text.replace(entity, character)
    text = f" {text} "
    for pattern, replacement in _SPLITS:
        text = pattern.sub(replacement, text)
    return text.split()


def bleu(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    lowercase: bool = False,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """100 · brevity penalty · (p₁ p₂ p₃ p₄)^¼ of the corpus, pₙ the clipped n-gram precision; no p is zero.

    An order without a match counts 1/2, 1/4, ... matches, one halving per such order; without any match BLEU is 0.
    Raises ValueError for unequal lengths or no pairs.
    """
    check_pairs(predictions, references)
    lower = str.lower if lowercase else str
    counts = []
    for prediction, reference in zip(predictions, references, strict=True):
        mine, theirs = words(lower(prediction)), words(lower(reference))
        orders = [_overlap(mine, theirs, n)[:2] for n in range(1, WORDS + 1)]
        counts.append([len(mine), len(theirs), *(count for order in orders for count in order)])
    return _resampled(np.array(counts, np.float64), _bleu, samples, seed)


def _bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU of summed counts [..., 2 + 2 · WORDS]: lengths, then matches and predicted n-grams of each order."""
    predicted, wanted = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2::2], sums[..., 3::2]
    none = (matches == 0) & (totals > 0)
    floor = 0.5 ** np.cumsum(none, axis=-1)
    precision = np.where(none, floor, matches) / np.maximum(totals, 1)
    penalty = np.exp(np.minimum(0, 1 - wanted / np.maximum(predicted, 1)))
    defined = (matches[..., 0] > 0) & (totals > 0).all(-1)
    mean = np.exp(np.log(np.where(totals > 0, precision, 1)).mean(-1))
    return np.where(defined, 100 * penalty * mean, 0.0)


def chrf(predictions: Sequence[str], references: Sequence[str], *, samples: int = 1000, seed: int = 0) -> Interval:
    """100 · (1 + β²) P R / (β² P + R) of the corpus, β = 2: P and R are means over character n-grams, n = 1 .. 6.

    White space counts for nothing. Raises ValueError for unequal lengths or no pairs.
    """
    check_pairs(predictions, references)
    counts = []
    for prediction, reference in zip(predictions, references, strict=True):
        mine, theirs = ("".join(text.split()) for text in (prediction, reference))
        orders = [_overlap(mine, theirs, n) for n in range(1, CHARACTERS + 1)]
        # A prediction is not held to n-grams longer than its reference.
        counts.append([c for same, all_mine, wanted in orders for c in (same, all_mine if wanted else 0, wanted)])
    return _resampled(np.array(counts, np.float64), _chrf, samples, seed)


def _chrf(sums: np.ndarray) -> np.ndarray:
    """chrF of summed counts [..., 3 · CHARACTERS]: matches, predicted and wanted n-grams of each order."""
    matches, predicted, wanted = (sums[..., i::3] for i in range(3))
    known = (predicted > 0) & (wanted > 0)
    orders = np.maximum(known.sum(-1), 1)
    p = np.where(known, matches / np.maximum(predicted, 1), 0).sum(-1) / orders
    r = np.where(known, matches / np.maximum(wanted, 1), 0).sum(-1) / orders
    weighted = BETA**2 * p + r
    return np.where(weighted > 0, 100 * (1 + BETA**2) * p * r / np.maximum(weighted, 1e-300), 0.0)


def _overlap(mine: Sequence[str], theirs: Sequence[str], n: int) -> tuple[int, int, int]:
    """Matching, predicted and wanted n-grams."""
    a, b = (Counter(tuple(side[i : i + n]) for i in range(len(side) - n + 1)) for side in (mine, theirs))
    return (a & b).total(), a.total(), b.total()


def _resampled(
    counts: np.ndarray, metric: Callable[[np.ndarray], np.ndarray], samples: int, seed: int, confidence: float = 0.95
) -> Interval:
    """The metric of all sentences' counts [n, K], between the percentiles of resampled corpora."""
    generator, n = np.random.default_rng(seed), len(counts)
    drawn = metric(np.stack([counts[generator.integers(0, n, n)].sum(0) for _ in range(samples)]))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(metric(counts.sum(0))), float(high))
