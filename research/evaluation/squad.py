"""Answers to questions as SQuAD and TriviaQA score them: exact match and F₁ of words, the best of several references.

See *SQuAD: 100,000+ Questions for Machine Comprehension of Text*, Rajpurkar et al., https://arxiv.org/abs/1606.05250,
and *TriviaQA*, Joshi et al., https://arxiv.org/abs/1705.03551.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from research.evaluation.text_metrics import Interval, bootstrap, check_pairs

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TRIVIA_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´", " "))

Normalize = Callable[[str], str]


def normalized(text: str) -> str:
    """Lower case, without ASCII punctuation, without the articles a, an, the; words one space apart."""
    return _without_articles(text.lower().translate(_PUNCTUATION))


def trivia_normalized(text: str) -> str:
    """TriviaQA's way: punctuation, some quotation marks beyond ASCII included, becomes a space instead of nothing."""
    return _without_articles(text.lower().translate(_TRIVIA_PUNCTUATION))


def exact(prediction: str, reference: str, normalize: Normalize = normalized) -> float:
    """1 if both normalized texts are equal, else 0."""
    return float(normalize(prediction) == normalize(reference))


def word_f1(prediction: str, reference: str, normalize: Normalize = normalized) -> float:
    """2PR / (P + R) of the words of both normalized texts, counted with repetition; of two empty texts 1."""
    mine, theirs = normalize(prediction).split(), normalize(reference).split()
    if not mine or not theirs:
        return float(mine == theirs)
    same = (Counter(mine) & Counter(theirs)).total()
    return 2 * same / (len(mine) + len(theirs))


def squad(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    normalize: Normalize = normalized,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """`exact match` and `f1`, shares of 1, each the best over an example's references.

    `normalize=trivia_normalized` scores as TriviaQA does.

    Raises ValueError for unequal lengths, no examples, or an example without a reference.
    """
    check_pairs(predictions, references)
    bare = [i for i, given in enumerate(references) if isinstance(given, str) or not given]
    if bare:
        raise ValueError(f"references of example {bare[0]} are {references[bare[0]]!r}; expected a list of texts")
    both = list(zip(predictions, references, strict=True))
    counted = {
        "exact match": [max(exact(p, r, normalize) for r in given) for p, given in both],
        "f1": [max(word_f1(p, r, normalize) for r in given) for p, given in both],
    }
    return {name: bootstrap(np.array(values), samples=samples, seed=seed) for name, values in counted.items()}


def _without_articles(text: str) -> str:
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())
