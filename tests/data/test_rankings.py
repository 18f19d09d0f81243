"""Rankings as forms and as pairs, against loops over completions and labellers."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest

from research.data.preference import as_preference, pairs_of_ranking
from research.data.rankings import (
    Ranking,
    Sample,
    add_form,
    conflicting,
    points_of,
    preferences_of,
    ranks_of,
    read_rankings,
    votes_of,
)

SAMPLES = [Sample("p", "Why?", ("one", "two", "three")), Sample("q", [{"role": "user", "content": "Hi"}], ("a", "b"))]


def fill(path, ranks):
    """What people do: numbers in place of nulls."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["ranks"] = ranks.get(row["id"], row["ranks"])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("seed", range(4))
def test_ranks_count_what_is_better(seed):
    generator = np.random.default_rng(seed)
    scores = [None if generator.random() < 0.2 else float(generator.integers(0, 4)) for _ in range(8)]
    for score, rank in zip(scores, ranks_of(scores), strict=True):
        better = [other for other in scores if other is not None and score is not None and other > score]
        assert rank == (None if score is None else 1 + len(better))
    assert ranks_of([]) == () and ranks_of([2.5]) == (1,)


@pytest.mark.parametrize("seed", range(4))
def test_points_are_wins_over_the_pairs_that_were_decided(seed):
    generator = np.random.default_rng(seed)
    verdicts = {pair: generator.choice(["A", "B", "tie", None]) for pair in itertools.combinations(range(5), 2)}
    verdicts |= {pair: None for pair in verdicts if 4 in pair}
    for one, points in enumerate(points_of(5, verdicts)):
        met = [(pair, v) for pair, v in verdicts.items() if one in pair and v is not None]
        won = sum(0.5 if v == "tie" else float(pair["AB".index(v)] == one) for pair, v in met)
        assert points == (pytest.approx(won / len(met)) if met else None)


def test_a_circle_of_verdicts_is_a_tie():
    assert ranks_of(points_of(3, {(0, 1): "A", (1, 2): "A", (0, 2): "B"})) == (1, 1, 1)


@pytest.mark.parametrize("seed", range(3))
def test_one_labellers_ranking_is_all_its_pairs_with_ties(seed):
    ranks = np.random.default_rng(seed).integers(1, 4, 5).tolist()
    sample = Sample("x", "Q", tuple("abcde"))
    if len(set(ranks)) == 1:
        ranks[0] += 1
    found = preferences_of([sample], votes_of([sample], [Ranking("x", "ann", tuple(ranks))]))
    assert Counter(found) == Counter(pairs_of_ranking("Q", sample.completions, ranks))


@pytest.mark.parametrize("seed", range(4))
def test_several_labellers_are_a_share_of_votes(seed):
    generator = np.random.default_rng(seed)
    people, sample = ["ann", "bob", "cy"], Sample("x", "Q", ("a", "b", "c", "d"))
    drawn = {
        who: [None if generator.random() < 0.2 else int(generator.integers(1, 4)) for _ in "abcd"] for who in people
    }
    votes = votes_of([sample], [Ranking("x", who, tuple(ranks)) for who, ranks in drawn.items()])
    expected, disputed = {}, set()
    for i, j in itertools.combinations(range(4), 2):
        said = [(r[i], r[j]) for r in drawn.values() if r[i] is not None and r[j] is not None]
        if said:
            expected["abcd"[i], "abcd"[j]] = np.mean([1.0 if a < b else 0.0 if a > b else 0.5 for a, b in said])
        if any(a < b for a, b in said) and any(a > b for a, b in said):
            disputed.add(("x", i, j))
    assert set(conflicting(votes)) == disputed

    def shares(conflicts):
        found = preferences_of([sample], votes, conflicts=conflicts)
        return {min((p.chosen, p.rejected), (p.rejected, p.chosen)): p for p in found}

    for pair, p in shares("share").items():
        assert p.preferred >= 0.5 and p.preferred == pytest.approx(max(expected[pair], 1 - expected[pair]))
        assert p.preferred == 0.5 or (p.chosen == pair[0]) == (expected[pair] > 0.5)
    assert {pair: p.preferred for pair, p in shares("majority").items()} == {
        pair: 0.5 if share == 0.5 else 1.0 for pair, share in expected.items()
    }
    left = {tuple("abcd"[n] for n in pair[1:]) for pair in disputed}
    assert set(shares("drop")) == set(expected) - left and set(shares("share")) == set(expected)


def test_a_form_is_filled_in_and_grows_but_is_never_overwritten(tmp_path):
    form = tmp_path / "forms" / "ann.jsonl"
    assert add_form(form, "ann", SAMPLES[:1]) == 1 and read_rankings(form, SAMPLES) == []
    fill(form, {"p": [2, None, 1.5]})
    form.write_text(form.read_text().rstrip("\n"))  # an editor may leave out the last line's end
    assert add_form(form, "ann", SAMPLES) == 1 and add_form(form, "ann", SAMPLES) == 0
    assert read_rankings(form, SAMPLES) == [Ranking("p", "ann", (2, None, 1.5))]
    fill(form, {"q": [1, 1]})
    done = read_rankings(form, SAMPLES)
    assert done == [Ranking("p", "ann", (2, None, 1.5)), Ranking("q", "ann", (1, 1))]
    found = preferences_of(SAMPLES, votes_of(SAMPLES, done))
    assert [one.preferred for one in found] == [1.0, 0.5] and found[0][1:3] == ("three", "one")
    # Every pair is an example that training reads, chats included.
    rows = [json.loads(json.dumps(one._asdict())) for one in found]
    assert [as_preference(row) for row in rows] == found


def test_several_people_share_a_form_and_may_leave_the_texts_out(tmp_path):
    rows = [{"id": "q", "labeller": who, "ranks": ranks} for who, ranks in (("ann", [1, 2]), ("bob", [2, 1]))]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    votes = votes_of(SAMPLES, read_rankings(tmp_path / "all.jsonl", SAMPLES))
    assert votes == {("q", 0, 1): {"ann": "A", "bob": "B"}} and conflicting(votes) == [("q", 0, 1)]
