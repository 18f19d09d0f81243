"""SQuAD's scores: the figures of T5's metric tests, and cases by hand."""

import numpy as np
import pytest

from research.evaluation import squad
from research.evaluation.squad import normalized, word_f1


def test_the_published_cases():
    gold = [["big moose", "hippo"], ["correct1"], ["correct2.1", "correct2.2"], ["a", "b"]]
    scores = squad(["‘a big  Moose!‘", "wrong", "correct2.2", "c"], gold)
    np.testing.assert_allclose(scores["exact match"].mean, 0.25)
    np.testing.assert_allclose(scores["f1"].mean, 0.35)
    scores = squad(["abd"], [["abc abd", "$$$$"]])
    np.testing.assert_allclose([scores["exact match"].mean, scores["f1"].mean], [0, 2 / 3])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat, an owl.", "cat owl"),
        ("theatre anthem", "theatre anthem"),
        ("U.S.A.", "usa"),
        ("the", ""),
        ("25°C (77°F)", "25°c 77°f"),
    ],
)
def test_normalized(text, expected):
    assert normalized(text) == expected


def test_words_count_as_often_as_they_stand_in_both():
    np.testing.assert_allclose(word_f1("red red car", "red car car"), 2 / 3)
    assert word_f1("the", "a") == 1 and word_f1("", "x") == 0 and word_f1("x", "the") == 0
    assert word_f1("smoke and ash", "ash") == pytest.approx(0.5)


def test_what_is_no_list_of_references_is_refused():
    with pytest.raises(ValueError, match="references of example 1 are 'b'; expected a list of texts"):
        squad(["a", "b"], [["a"], "b"])
    with pytest.raises(ValueError, match=r"references of example 0 are \[\]"):
        squad(["a"], [[]])
