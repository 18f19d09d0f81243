import pytest

from research.evaluation import most_common, nearest


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
