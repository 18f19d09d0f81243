"""Perturbations: what they may change, what they must not, and that the seed decides all of it."""

import re

import pytest

from research.evaluation.perturb import NEIGHBOURS, PERTURBATIONS, case, perturbed, spacing, typos

TEXT = "The quick brown fox, aged 12, doesn't jump over every lazy dog.\n    Über-großzügig!  \n\tIt is NASA's."


@pytest.fixture(scope="module")
def passages(data_dir):
    found = (data_dir / "tinyshakespeare" / "input.txt").read_text()[:60_000].split("\n\n")
    assert len(found) > 100
    return found[:150]


def edits(a, b):
    """Distance in letters left out, put in, replaced, or exchanged with their neighbour (optimal string alignment)."""
    d = [[i + j if not i * j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i][j] = min(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i][j] = min(d[i][j], d[i - 2][j - 2] + 1)
    return d[-1][-1]


@pytest.mark.parametrize("seed", range(5))
def test_every_long_word_gets_one_slip(seed):
    before, after = (re.split(r"([^\W\d_]+)", text) for text in (TEXT, typos(TEXT, seed=seed, rate=1.0)))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        if old.isalpha() and len(old) >= 4:
            assert edits(old, new) == 1, (old, new)
            assert old[0] == new[0]
        else:
            assert old == new


def test_the_rate_is_kept(passages):
    words = changed = 0
    for text in passages:
        for old, new in zip(re.findall(r"[^\W\d_]+", text), re.findall(r"[^\W\d_]+", typos(text)), strict=True):
            words += len(old) >= 4
            changed += old != new
    assert changed / words == pytest.approx(0.2, abs=0.02)
    assert typos(TEXT, rate=0.0) == TEXT


def test_keys_are_neighbours_of_each_other():
    assert set(NEIGHBOURS) == set("abcdefghijklmnopqrstuvwxyz")
    assert all(key not in near for key, near in NEIGHBOURS.items())
    mutual = [key in NEIGHBOURS[other] for key, near in NEIGHBOURS.items() for other in near]
    assert sum(mutual) / len(mutual) > 0.9


def test_case():
    assert case("ÉCOLE Is") == "école is"
    assert case("école is", kind="upper") == "ÉCOLE IS"
    chance = case(TEXT, kind="chance")
    assert chance != TEXT and chance.lower() == TEXT.lower()


@pytest.mark.parametrize("kind", ["lower", "upper"])
def test_case_twice_is_case_once(passages, kind):
    for text in passages:
        assert case(case(text, kind=kind), kind=kind) == case(text, kind=kind)


def test_spacing_changes_only_how_many_blanks_stand_between_words(passages):
    for text in [TEXT, *passages]:
        wide = spacing(text)
        assert wide.split() == text.split()
        assert [re.match(r"\s*", line)[0] for line in wide.split("\n")] == [
            re.match(r"\s*", line)[0] for line in text.split("\n")
        ]
        assert max(map(len, re.findall(r"(?<=\S) +(?=\S)", wide)), default=0) <= 3
        assert spacing(text, most=1) == text
    assert len(spacing(passages[0])) > len(passages[0])


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_seed_and_the_text_alone_decide(name):
    how = PERTURBATIONS[name]
    assert how(TEXT, seed=3) == how(TEXT, seed=3)
    if name != "case":
        assert how(TEXT, seed=3) != how(TEXT, seed=4)
    assert how("", seed=0) == ""


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_label_and_all_other_fields_stay(name):
    row = {"text": TEXT, "label": "A Positive Label With Words", "id": 7}
    found = perturbed(row, name, ["text"], label="label", seed=1)
    assert found["text"] != TEXT
    assert {k: v for k, v in found.items() if k != "text"} == {"label": row["label"], "id": 7}
    assert row["text"] == TEXT and list(found) == list(row)


def test_any_function_of_a_text_perturbs():
    assert perturbed({"q": "ab"}, lambda text, times: text * times, ["q"], times=2) == {"q": "abab"}
