"""How good a model is: text metrics with intervals, compression baselines, trivial baselines."""

from research.evaluation.baselines import (
    best_sentence,
    most_common,
    naive_bayes,
    nearest,
    rarest_phrase,
    tag_by_neighbours,
)
from research.evaluation.bertscore import BertScore, bertscore
from research.evaluation.compression import ngram_bits_per_byte, xz_bits_per_byte
from research.evaluation.squad import squad
from research.evaluation.text_metrics import Interval, bits_per_byte, bootstrap, exact_match, rouge
from research.evaluation.translation import bleu, chrf, ter

__all__ = [
    "BertScore",
    "Interval",
    "bertscore",
    "best_sentence",
    "bits_per_byte",
    "bleu",
    "bootstrap",
    "chrf",
    "exact_match",
    "most_common",
    "naive_bayes",
    "nearest",
    "ngram_bits_per_byte",
    "rarest_phrase",
    "rouge",
    "squad",
    "tag_by_neighbours",
    "ter",
    "xz_bits_per_byte",
]
