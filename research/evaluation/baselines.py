"""Answers that need no model: what any trained model has to beat before its score means something."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from research.data.word_vectors import TfIdf, count_words, split_words


def most_common(answers: Sequence[str]) -> str:
    """The most frequent training answer, the earliest one when several are equally frequent."""
    if not answers:
        raise ValueError("the most common answer needs at least one training answer; got none")
    return Counter(answers).most_common(1)[0][0]


def nearest(train_prompts: Sequence[str], train_answers: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """For each prompt the answer of the most similar training prompt: cosine of tf-idf word vectors.

    tf-idf(w, p) = count(w in p) · ln(n / prompts with w), over the words of the training prompts. Ties go to the
    earlier training prompt. Raises ValueError when there are no training prompts or lengths differ.
    """
    if len(train_prompts) != len(train_answers) or not train_prompts:
        raise ValueError(
            "nearest needs as many training prompts as answers, at least one; "
            f"got {len(train_prompts)} and {len(train_answers)}"
        )
    similarity = TfIdf(train_prompts).similarity(prompts)
    return [train_answers[i] for i in similarity.argmax(axis=1)]


def best_sentence(question: str, paragraph: str) -> str:
    """The sentence of a paragraph that shares most different words with the question, the earliest of equals."""
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", paragraph.strip()) if s]
    if not sentences:
        raise ValueError("the paragraph is empty: it has no sentence to choose")
    asked = set(split_words(question))
    return max(sentences, key=lambda sentence: len(asked & set(split_words(sentence))))


def rarest_phrase(question: str, sentence: str, texts: Sequence[str], longest: int = 2) -> str:
    """The run of at most `longest` words of a sentence with the largest mean ln(n / texts with the word).

    Words of the question count nothing; of equals the longest, then the earliest. `texts`: n of them, at least one.
    """
    if not texts:
        raise ValueError("the rarest phrase needs at least one text to count words in; got none")
    counts = Counter(word for text in texts for word in set(split_words(text)))
    asked, found = set(split_words(question)), re.findall(r"\w+", sentence)
    rarity = [0.0 if w.lower() in asked else float(np.log(len(texts) / max(counts[w.lower()], 0.5))) for w in found]
    runs = [(i, n) for n in range(longest, 0, -1) for i in range(len(found) - n + 1)]
    if not runs:
        return ""
    i, n = max(runs, key=lambda run: round(float(np.mean(rarity[run[0] : sum(run)])), 9))
    return " ".join(found[i : i + n])


def naive_bayes(texts: Sequence[str], labels: Sequence[int], asked: Sequence[str]) -> list[int]:
    """The label with the largest ln p(label) + Σ ln p(word | label), by counts with one added to each word.

    See *A comparison of event models for naive Bayes text classification*, McCallum and Nigam, 1998.

    Raises:
      ValueError: no text to learn from, or not a label for each.
    """
    if not texts or len(texts) != len(labels):
        raise ValueError(f"naive Bayes needs a label for every text, at least one; got {len(texts)} and {len(labels)}")
    words = sorted({word for text in texts for word in split_words(text)})
    vocabulary = {word: i for i, word in enumerate(words)}
    kinds, each = np.unique(np.asarray(labels), return_inverse=True)
    counts = count_words(texts, vocabulary)
    log_words = []
    for kind in range(len(kinds)):
        found = np.asarray(counts[each == kind].sum(axis=0)).ravel() + 1.0
        log_words.append(np.log(found / found.sum()))
    prior = np.log(np.bincount(each) / len(each))
    scores = count_words(asked, vocabulary) @ np.stack(log_words, axis=1) + prior
    return kinds[np.argmax(scores, axis=1)].tolist()


def linear_preference(differences: Any, *, ridge: float = 1.0) -> np.ndarray:
    """The reward w·x that tells preferred answers from rejected ones: w of least Σ −log σ(w·d) + ridge/2 |w|².

    Bradley and Terry's model with a linear reward, which is logistic regression on differences without an intercept.

    differences: [P, F], x(preferred) − x(rejected) of every pair, as an array or a sparse one. Gives w [F].

    Raises:
      ValueError: no pair, or a ridge that is not above 0: where the pairs can be told apart, w would have no end.
    """
    if differences.ndim != 2 or not differences.shape[0]:
        raise ValueError(f"a linear preference needs differences [pairs, features]; got {differences.shape}")
    if not ridge > 0:
        raise ValueError(f"ridge must be above 0, given {ridge}")

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margins = differences @ w
        gradient = ridge * w - differences.T @ expit(-margins)
        return float(np.logaddexp(0, -margins).sum() + ridge / 2 * w @ w), gradient

    start = np.zeros(differences.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-8}).x


def tag_by_neighbours(
    texts: Sequence[Sequence[int]], tags: Sequence[Sequence[int]], asked: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Every token's commonest tag in training: between the same neighbours, else behind the same one, else alone.

    A token never seen takes the commonest tag of all. Of equals the smallest tag.

    Raises:
      ValueError: nothing to learn from.
    """
    seen: dict[tuple[int, ...], Counter[int]] = {}
    for text, own in zip(texts, tags, strict=True):
        for context, tag in zip(_contexts(text), own, strict=True):
            for key in context:
                seen.setdefault(key, Counter())[tag] += 1
    if not seen:
        raise ValueError("tagging by neighbours needs at least one tagged token; got none")
    best = {key: min(found, key=lambda tag: (-found[tag], tag)) for key, found in seen.items()}
    return [[next(best[key] for key in context if key in best) for context in _contexts(text)] for text in asked]


def _contexts(text: Sequence[int]) -> list[tuple[tuple[int, ...], ...]]:
    padded = [-1, *text, -1]
    return [((b, a, c), (b, a), (b,), ()) for a, b, c in zip(padded, padded[1:], padded[2:], strict=False)]
