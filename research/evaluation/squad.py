"""Answers to questions as SQuAD scores them: exact match and F₁ of words, against the best of several references.

See *SQuAD: 100,000+ Questions for Machine Comprehension of Text*, Rajpurkar et al., https://arxiv.org/abs/1606.05250.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from research.evaluation.text_metrics import Interval, bootstrap, check_pairs

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Lower case, without ASCII punctuation, without the articles a, an, the; words one space apart."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split())


def word_f1(prediction: str, reference: str) -> float:
    """2PR / (P + R) of the words of both normalized texts, counted with repetition; of two empty texts 1."""
    mine, theirs = normalized(prediction).split(), normalized(reference).split()
    if not mine or not theirs:
        return float(mine == theirs)
    same = (Counter(mine) & Counter(theirs)).total()
    return 2 * same / (len(mine) + len(theirs))


def squad(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, samples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """`exact match` and `f1`, shares of 1, each the best over an example's references.

    Raises ValueError for unequal lengths, no examples, or an example without a reference.
    """
    check_pairs(predictions, references)
    bare = [i for i, given in enumerate(references) if isinstance(given, str) or not given]
    if bare:
        raise ValueError(f"references of example {bare[0]} are {references[bare[0]]!r}; expected a list of texts")
    both = list(zip(predictions, references, strict=True))
    exact = [max(float(normalized(p) == normalized(r)) for r in given) for p, given in both]
    shared = [max(word_f1(p, r) for r in given) for p, given in both]
    counted = {"exact match": exact, "f1": shared}
    return {name: bootstrap(np.array(values), samples=samples, seed=seed) for name, values in counted.items()}
