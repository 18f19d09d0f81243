"""Bad input of rankings and of the commands that make and measure preferences: one line, before anything is lost."""

import json

import pytest

from configs import preferences as preferences_config
from experiments import preferences
from research.data.rankings import Ranking, Sample, points_of, preferences_of, ranks_of, read_rankings, votes_of
from research.evaluation.agreement import fleiss_kappa, of_votes

SAMPLES = [Sample("story-1", "Why?", ("one", "two", "three")), Sample("story-2", "How?", ("a", "b"))]
ROW = {"id": "story-2", "labeller": "ann", "ranks": [1, 2]}


def form(folder, *rows):
    (folder / "form.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_rankings(folder / "form.jsonl", SAMPLES)


def votes(*ranks, name="story-2"):
    return votes_of(SAMPLES, [Ranking(name, f"person {i}", r) for i, r in enumerate(ranks)])


def prompts(folder, *rows):
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return preferences.read_prompts(folder / "prompts.jsonl")


def rank(**given):
    return preferences.make_rank("x", given, {"data": ""}, None, None)


CASES = {
    "ranking of an unknown prompt": (
        lambda f: form(f, ROW, ROW | {"id": "story2"}),
        r"form\.jsonl, row 2: no prompt has the id 'story2', did you mean 'story-2'\?; there are 2",
    ),
    "the same in Python": (lambda _: votes((1, 2), name="story"), "'person 0' ranks the unknown prompt 'story'"),
    "form without ranks": (
        lambda f: form(f, {"id": "story-1"}),
        r"row 1: expected id, labeller and ranks; \['labeller'",
    ),
    "ranks of other completions": (
        lambda f: form(f, ROW | {"ranks": [1, 2, 3]}),
        r"must be 2 numbers or nulls.*\[1, 2, 3\]",
    ),
    "ranks that are words": (lambda f: form(f, ROW | {"ranks": ["best", 2]}), r"must be 2 numbers or nulls.*'best'"),
    "ranks that are booleans": (lambda f: form(f, ROW | {"ranks": [True, False]}), "must be 2 numbers or nulls"),
    "ranks in a text": (lambda f: form(f, ROW | {"ranks": "12"}), "must be 2 numbers or nulls"),
    "one rank only": (lambda f: form(f, ROW | {"ranks": [1, None]}), "'story-2' has one rank only"),
    "completions that were edited": (
        lambda f: form(f, ROW | {"completions": ["a", "B"]}),
        "not those that were sampled",
    ),
    "one labeller twice": (lambda f: form(f, ROW, ROW), "row 2: labeller 'ann' ranks prompt 'story-2' a second time"),
    "too few ranks in Python": (lambda _: votes((1,)), "gives prompt 'story-2' 1 ranks for 2 completions"),
    "empty completion": (lambda _: Sample("s", "q", ("a", " ")).checked(), "prompt 's': completion 1 is empty"),
    "equal completions": (lambda _: Sample("s", "q", ("a", "a")).checked(), "given 2, of which 1 differ"),
    "one completion": (lambda _: Sample("s", "q", ("a",)).checked(), "at least 2 completions"),
    "score of NaN": (lambda _: ranks_of([1.0, float("nan")]), "a score of NaN cannot be ranked"),
    "all tied": (
        lambda _: preferences_of(SAMPLES, votes((1, 1), (2, 2))),
        "nothing can be learned from 1 pairs that are all ties",
    ),
    "tied by disagreement": (lambda _: preferences_of(SAMPLES, votes((1, 2), (2, 1))), "1 pairs that are all ties"),
    "nothing but conflicts": (
        lambda _: preferences_of(SAMPLES, votes((1, 2), (2, 1)), conflicts="drop"),
        "from 0 pairs that are all ties; 1 with a conflict were left out",
    ),
    "unknown treatment of conflicts": (
        lambda _: preferences_of(SAMPLES, votes((1, 2)), conflicts="majorty"),
        "unknown conflicts 'majorty', did you mean 'majority'",
    ),
    "agreement of one labeller": (
        lambda _: of_votes(votes((1, 2)), ["person 0"]),
        r"agreement needs at least two labellers, given \['person 0'\]",
    ),
    "agreement of labellers of different prompts": (
        lambda _: of_votes(votes((1, 2)), ["person 0", "ann"]),
        "share none",
    ),
    "kappa of one rater": (lambda _: fleiss_kappa([["a", "b"]]), "needs at least two raters"),
    "kappa with a gap": (lambda _: fleiss_kappa([["a", None], ["a", "b"]]), "Krippendorff's alpha does not"),
    "row without a prompt": (lambda f: prompts(f, {"text": "x"}), r"row 0: expected a prompt, .* it has \['text'\]"),
    "prompt id twice": (lambda f: prompts(f, {"prompt": "x"}, {"prompt": "x"}), "row 1: the id '.*' is there twice"),
    "unknown form of a judge": (lambda _: rank(judge="x:y", form="pair"), "did you mean 'pairwise'"),
    "judge that is nowhere": (lambda _: rank(judge="no_such:judge"), "'no_such:judge' of labeller 'x' is no"),
    "judge without an address": (lambda _: rank(judge={"url": "x", "model": "m"}), "must begin with http"),
    "config of another name": (lambda _: preferences_config.get_config("small"), "unknown argument 'small'"),
}


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "-"))
def test_refusals(name, tmp_path):
    call, message = CASES[name]
    with pytest.raises(ValueError, match=message) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)


def test_points_without_verdicts_are_none():
    assert points_of(3, {(0, 1): None}) == (None, None, None)
