import pytest

from research.evaluation import best_sentence, most_common, nearest, rarest_phrase


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
