"""Other names and pronouns: consistent, with their possessives and capitals, and nothing else touched."""

import re

import pytest

from research.evaluation.counterfactual import GENDERS, KIND, NAMES, PAIRS, WORDS, regender, rename

WORD = re.compile(r"[^\W\d_]+(?:['’]am)?")
TEXT = "Emily met Andrew. EMILY's dog liked Andrew’s cat; emily-like, Emilyish (Emily)."


@pytest.fixture(scope="module")
def passages(data_dir):
    found = (data_dir / "tinyshakespeare" / "input.txt").read_text()[:120_000].split("\n\n")
    assert len(found) > 200
    return found


def kinds(text):
    return [KIND[name] for name in re.findall(r"\w+", text) if name in KIND]


def test_the_lists_are_fit_for_use():
    names = [name for both in NAMES.values() for some in both.values() for name in some]
    assert len(names) == len(set(names)) == len(NAMES) * 2 * 10
    assert not [name for name in names if name.endswith("s") or not name.isalpha() or name != name.capitalize()]
    assert all(word == word.lower() for pair in PAIRS for word in pair)
    assert not set(WORDS["male"]) & set(WORDS["female"])


def test_names_change_consistently_with_possessives_and_capitals():
    found = rename(TEXT, "indian")
    her, him = re.match(r"(\w+) met (\w+)\.", found).groups()
    assert (KIND[her], KIND[him]) == (("indian", "female"), ("indian", "male"))
    assert found == f"{her} met {him}. {her.upper()}'s dog liked {him}’s cat; emily-like, Emilyish ({her})."


@pytest.mark.parametrize("group", NAMES)
@pytest.mark.parametrize("gender", [None, *GENDERS])
def test_twice_is_once_and_all_names_are_of_the_kind_asked_for(group, gender):
    text = "Emily, Sarah, Omar, Ngozi and Emily wrote to Rahul."
    found = rename(text, group, gender)
    wanted = [(group, gender or own) for _, own in kinds(text)]
    assert kinds(found) == wanted
    assert rename(found, group, gender) == found
    before, after = (re.findall(r"[A-Z]\w+", t) for t in (text, found))
    assert len(set(zip(before, after, strict=True))) == len(set(before)) == len(set(after))
    assert re.sub(r"[A-Z]\w+", "_", text) == re.sub(r"[A-Z]\w+", "_", found)


def test_no_name_no_change(passages):
    text = passages[0]
    assert not kinds(text)
    assert rename(text, "chinese") == text
    assert rename(TEXT) == TEXT


def test_the_seed_chooses():
    assert rename(TEXT, "arabic", seed=1) == rename(TEXT, "arabic", seed=1)
    assert len({rename(TEXT, "arabic", seed=seed) for seed in range(8)}) > 1


@pytest.mark.parametrize(
    ("female", "male"),
    [
        ("She lost her keys.", "He lost his keys."),
        ("I saw her.", "I saw him."),
        ("I gave it to her and left.", "I gave it to him and left."),
        ("It is hers, not mine.", "It is his, not mine."),
        ("HER KEYS are hers.", "HIS KEYS are his."),
        ("She's her mother's daughter: herself!", "He's his father's son: himself!"),
        ("Ms. Clark, the actress, met two Women.", "Mr. Clark, the actor, met two Men."),
        ("“Her,” she said, “and her new car”", "“Him,” he said, “and his new car”"),
    ],
)
def test_pronouns_both_ways(female, male):
    assert regender(female, "male") == male
    assert regender(male, "female") == female
    assert regender(female, "swap") == male
    assert regender(male, "swap") == female
    assert regender(male, "male") == male
    assert regender(female, "female") == female


def test_swap_takes_both_at_once():
    text = "Her brother told his wife that he saw her father, and she told him."
    swapped = "His sister told her husband that she saw his mother, and he told her."
    assert regender(text, "swap") == swapped
    assert regender(swapped, "swap") == text


@pytest.mark.parametrize(
    "text", ["I miss you, Anna.", "It took 20 ms. Then", "Theshe hershey shepherd", "Stephen King"]
)
def test_what_only_looks_like_it_stays(text):
    assert regender(text, "male") == regender(text, "female") == regender(text, "swap") == text


def test_several_words_of_one_side():
    assert regender("Mrs Clark, Miss Bell and Ms Dale said: yes, ma'am", "male") == (
        "Mr Clark, Mr Bell and Mr Dale said: yes, sir"
    )
    assert regender("Mr Clark said: yes, sir", "female") == "Ms Clark said: yes, madam"


@pytest.mark.parametrize("to", GENDERS)
def test_on_real_text_twice_is_once_and_only_listed_words_change(passages, to):
    other = GENDERS[1 - GENDERS.index(to)]
    listed = {*WORDS[to], "her" if to == "male" else "his"}
    changes = 0
    for text in passages:
        found = regender(text, to)
        assert regender(found, to) == found
        assert WORD.sub("_", found) == WORD.sub("_", text)
        for old, new in zip(WORD.findall(text), WORD.findall(found), strict=True):
            changes += old != new
            assert old == new or (old.lower() in listed and new.lower() not in WORDS[to])
            assert old[0].isupper() == new[0].isupper()
        left = {word.lower() for word in WORD.findall(found)} & set(WORDS[to]) - {"miss", "ms", "mr", "mrs"}
        assert not left, f"{other} words left: {left}"
    assert changes > 50
