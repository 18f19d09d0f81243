"""A language model as judge of answers: anything that maps a list of prompts to a list of texts will do."""

from .address import Address
from .alpaca_eval import read_annotations
from .ask import Judge, NoAnswer, ask
from .compare import Comparison, combine, compare
from .prompts import PAIRWISE, PAIRWISE_REFERENCE, SINGLE, SINGLE_REFERENCE, Form, read_mt_bench
from .rate import Ratings, rate
from .trained import TRAINED, trained_judge
from .verdicts import read_rating, read_verdict
from .win_rate import Agreement, LengthControlled, agreement, length_controlled, longer_wins, win_rate

__all__ = [
    "PAIRWISE",
    "PAIRWISE_REFERENCE",
    "SINGLE",
    "SINGLE_REFERENCE",
    "TRAINED",
    "Address",
    "Agreement",
    "Comparison",
    "Form",
    "Judge",
    "LengthControlled",
    "NoAnswer",
    "Ratings",
    "agreement",
    "ask",
    "combine",
    "compare",
    "length_controlled",
    "longer_wins",
    "rate",
    "read_annotations",
    "read_mt_bench",
    "read_rating",
    "read_verdict",
    "trained_judge",
    "win_rate",
]
