import math

import numpy as np
import pytest
from scipy import sparse

from research.evaluation import best_sentence, most_common, naive_bayes, nearest, rarest_phrase, tag_by_neighbours
from research.evaluation.baselines import linear_preference


def test_most_common_prefers_the_earlier_of_equals():
    assert most_common(["b", "a", "a", "b", "c"]) == "b"


def test_nearest_weighs_rare_words_more_than_common_ones():
    prompts = ["the function opens a file", "the function closes a socket", "the function parses a date"]
    answers = ["open", "close", "parse"]
    asked = ["the function that opens", "a the the function a a date", "socket socket function"]
    assert nearest(prompts, answers, asked) == ["open", "parse", "close"]


def test_nearest_of_a_prompt_without_known_words_is_the_first():
    assert nearest(["x y", "z w"], ["1", "2"], ["unknown"]) == ["1"]


def test_refusals():
    with pytest.raises(ValueError, match="got none"):
        most_common([])
    with pytest.raises(ValueError, match="1 and 0"):
        nearest(["a"], [], ["b"])


PARAGRAPH = "Cells divide. Plants make sugar by photosynthesis in the leaf! Why? Animals eat plants."


def test_the_best_sentence_shares_most_words():
    assert best_sentence("How do plants make sugar?", PARAGRAPH).startswith("Plants make sugar")
    assert best_sentence("What do animals eat?", PARAGRAPH) == "Animals eat plants."
    assert best_sentence("zzz", PARAGRAPH) == "Cells divide."
    with pytest.raises(ValueError, match="paragraph is empty"):
        best_sentence("a", " ")


def test_the_rarest_phrase_is_not_of_the_question():
    texts = ["plants make sugar in the leaf", "the leaf", "in the sun", PARAGRAPH]
    sentence = "Plants make sugar by photosynthesis in the leaf!"
    # "by" and "photosynthesis" are in one text of four, "in", "leaf" and "the" in more.
    assert rarest_phrase("How do plants make sugar?", sentence, texts) == "by photosynthesis"
    assert rarest_phrase("what by", sentence, texts, longest=1) == "photosynthesis"
    assert rarest_phrase("what", "?", texts) == ""
    with pytest.raises(ValueError, match="at least one text"):
        rarest_phrase("what", "a b", [])


@pytest.mark.parametrize("seed", range(3))
def test_naive_bayes_equals_a_plain_loop(seed):
    draw = np.random.default_rng(seed)
    texts = [" ".join(draw.choice(list("abcdef"), draw.integers(1, 6))) for _ in range(20)]
    labels = draw.integers(0, 3, 20).tolist()
    asked = ["a b", "f f f e", "z", "", "c d a"]

    def score(text, label):
        mine = [t.split() for t, own in zip(texts, labels, strict=True) if own == label]
        words = [w for t in mine for w in t]
        known = {w for t in texts for w in t.split()}
        total = math.log(len(mine) / len(texts))
        return total + sum(
            math.log((words.count(w) + 1) / (len(words) + len(known))) for w in text.split() if w in known
        )

    assert naive_bayes(texts, labels, asked) == [
        max(sorted(set(labels)), key=lambda y, t=t: score(t, y)) for t in asked
    ]
    with pytest.raises(ValueError, match="got 1 and 0"):
        naive_bayes(["a"], [], ["b"])


def test_tags_are_found_by_the_closest_context():
    texts, tags = [[1, 2, 3], [1, 2, 4], [5, 2, 4], [5, 2, 4], [2]], [[0, 1, 0], [0, 2, 0], [0, 3, 0], [0, 3, 0], [4]]
    # Between 1 and 3; behind 5; after something new: the commonest of 2; an unknown token: the commonest of all.
    assert tag_by_neighbours(texts, tags, [[1, 2, 3], [5, 2, 9], [8, 2, 8], [7], []]) == [
        [0, 1, 0], [0, 3, 0], [0, 3, 0], [0], []]  # fmt: skip
    with pytest.raises(ValueError, match="at least one tagged token"):
        tag_by_neighbours([[]], [[]], [[1]])


@pytest.mark.oracle
@pytest.mark.parametrize("ridge", [0.1, 1.0, 30.0])
def test_a_linear_preference_is_logistic_regression_on_differences(ridge):
    linear = pytest.importorskip("sklearn.linear_model")
    for seed in range(3):
        d = np.random.default_rng(seed).normal(0.3, 1, (40, 6))
        # Every pair twice, once each way round: sklearn wants both classes, and twice the loss is half of 1 / C.
        oracle = linear.LogisticRegression(C=0.5 / ridge, fit_intercept=False, tol=1e-10, max_iter=5000)
        oracle.fit(np.concatenate([d, -d]), np.repeat([1, 0], 40))
        np.testing.assert_allclose(linear_preference(d, ridge=ridge), oracle.coef_[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(linear_preference(sparse.csr_array(d), ridge=ridge), oracle.coef_[0], rtol=1e-4)


def test_what_a_linear_preference_needs():
    with pytest.raises(ValueError, match=r"needs differences \[pairs, features\]; got \(0, 3\)"):
        linear_preference(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="ridge must be above 0, given 0"):
        linear_preference(np.ones((2, 3)), ridge=0)
