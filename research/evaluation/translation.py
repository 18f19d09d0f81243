"""BLEU, chrF and TER of a corpus: the numbers of sacreBLEU's defaults, each with an interval.

All three are ratios of counts over the whole corpus, so the interval resamples sentences and adds their counts anew.
See *BLEU: a Method for Automatic Evaluation of Machine Translation*, Papineni et al., 2002; *A Call for Clarity in
Reporting BLEU Scores*, Post, https://arxiv.org/abs/1804.08771; *chrF: character n-gram F-score for automatic MT
evaluation*, Popović, 2015; *A Study of Translation Edit Rate with Targeted Human Annotation*, Snover et al., 2006.
"""

from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric

from research.evaluation.text_metrics import Interval, check_pairs

References = Sequence[str] | Sequence[Sequence[str]]


def bleu(
    predictions: Sequence[str],
    references: References,
    *,
    lowercase: bool = False,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """100 · brevity penalty · (p₁ p₂ p₃ p₄)^¼ of the corpus, pₙ the clipped n-gram precision of mteval-v13a's tokens.

    An order without a match counts 1/2, 1/4, ... matches, one halving per such order; without any match BLEU is 0.
    references: one text per prediction, or a list of them. Raises ValueError for unequal lengths or no pairs.
    """
    return _measured(BLEU(lowercase=lowercase, force=True), predictions, references, samples, seed)


def chrf(predictions: Sequence[str], references: References, *, samples: int = 1000, seed: int = 0) -> Interval:
    """100 · (1 + β²) P R / (β² P + R) of the corpus, β = 2: P and R are means over character n-grams, n = 1 .. 6.

    White space counts for nothing. Otherwise as `bleu`.
    """
    return _measured(CHRF(), predictions, references, samples, seed)


def ter(predictions: Sequence[str], references: References, *, samples: int = 1000, seed: int = 0) -> Interval:
    """100 · edits / words of the references: words inserted, deleted, exchanged, and runs of words moved; 0 is best.

    Letter case counts for nothing. Of several references the one with the fewest edits is compared, and their mean
    length divides. Otherwise as `bleu`.
    """
    return _measured(TER(), predictions, references, samples, seed)


def _measured(
    metric: Metric,
    predictions: Sequence[str],
    references: References,
    samples: int,
    seed: int,
    confidence: float = 0.95,
) -> Interval:
    """The metric of all sentences' counts, between the percentiles of resampled corpora."""
    check_pairs(predictions, references)
    groups = [[given] if isinstance(given, str) else list(given) for given in references]
    lone = [i for i, group in enumerate(groups) if not group]
    if lone:
        raise ValueError(f"prediction {lone[0]} has no reference to be compared with")
    # sacreBLEU takes the first references of all, then the second ones, None where there is none.
    streams: list = [[g[k] if k < len(g) else None for g in groups] for k in range(max(map(len, groups)))]
    # These two methods are what its own significance tests are made of; its public ones give no counts to resample.
    counts = np.array(metric._extract_corpus_statistics(list(predictions), streams), np.float64)
    score = lambda sums: float(metric._compute_score_from_stats(sums.tolist()).score)  # noqa: E731
    generator, n = np.random.default_rng(seed), len(counts)
    drawn = [score(counts[generator.integers(0, n, n)].sum(0)) for _ in range(samples)]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), score(counts.sum(0)), float(high))
