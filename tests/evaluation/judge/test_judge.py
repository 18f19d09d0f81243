"""Judges that are known through and through: honest, biased by place or length, talking nonsense, or silent."""

import json

import pytest

from research.evaluation import judge as J


def pair(question, a, b, **rest):
    return {"question": question, "answer_a": a, "answer_b": b, **rest}


# The question asks for the larger number, or says nothing ("?").
PAIRS = [pair("?", "3", "7"), pair("?", "9", "2"), pair("?", "5", "5"), pair("?", "12", "30")]


def shown(prompt):
    """The two answers of a prompt in our own wording, in the order in which the judge sees them."""
    return [prompt.split(f"=== Answer {x} ===\n")[1].split(f"\n=== End of answer {x} ===")[0] for x in "AB"]


def honest(prompts):
    """Prefers the larger number; tells equal ones."""
    answers = []
    for first, second in map(shown, prompts):
        verdict = "C" if int(first) == int(second) else "A" if int(first) > int(second) else "B"
        answers.append(f"[[A]] would say that {first} is more. I have compared them.\n[[{verdict}]]")
    return answers


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("[[A]]", "A"),
        ("I first thought [[A]], but no.\n\nFinal verdict: [[B]]", "B"),
        ("**[[C]]**", "tie"),
        ("[[ tie ]]", "tie"),
        ("[A]", None),
        ("Assistant A is better", None),
        ("[[A or B]]", None),
        ("", None),
    ],
)
def test_verdicts(text, verdict):
    assert J.read_verdict(text) == verdict


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Rating: [[5]]", 5),
        ("[[7.5]]", 7.5),
        ("not [[3]] but [[8]]", 8),
        ("[[11]]", None),
        ("[[0]]", None),
        ("[5]", None),
        ("5/10", None),
    ],
)
def test_ratings(text, rating):
    assert J.read_rating(text) == rating


def test_an_honest_judge_says_the_same_in_both_orders():
    found = J.compare(honest, PAIRS)
    assert found.verdicts == ["B", "A", "tie", "B"]
    assert found.orders == [found.verdicts, found.verdicts]
    summary = found.summary()
    assert (summary["wins_a"], summary["wins_b"], summary["ties"]) == (0.25, 0.5, 0.25)
    assert (summary["consistent"], summary["prefers_first"], summary["unparseable"]) == (1, 0, 0)
    assert found.win_rate("A").mean == 37.5
    assert found.win_rate("B").mean == 62.5
    assert len(found.prompts) == len(found.answers) == 8
    assert shown(found.prompts[0]) == ["3", "7"]
    assert shown(found.prompts[4]) == ["7", "3"]


@pytest.mark.parametrize(("place", "name"), [("A", "prefers_first"), ("B", "prefers_second")])
def test_a_judge_of_places_gives_ties_and_is_seen(place, name):
    found = J.compare(lambda prompts: [f"[[{place}]]"] * len(prompts), PAIRS)
    assert found.verdicts == ["tie"] * 4
    assert found.summary()[name] == 1
    assert found.summary()["consistent"] == 0
    alone = J.compare(lambda prompts: [f"[[{place}]]"] * len(prompts), PAIRS, both_orders=False)
    assert alone.verdicts == [place] * 4  # one order alone would have hidden it
    assert "consistent" not in alone.summary()


def test_what_cannot_be_read_or_never_came_is_counted():
    def judge(prompts):
        answers = honest(prompts)
        answers[0], answers[1], answers[7] = "I cannot decide.", J.NoAnswer("timed out"), "[[B]] no: [[maybe]]"
        return answers

    found = J.compare(judge, PAIRS)
    assert found.verdicts == [None, None, "tie", "tie"]  # the last pair: B, and in the other order A's place is B's
    summary = found.summary()
    assert (summary["unparseable"], summary["no_answer"], summary["decided"]) == (1 / 8, 1 / 8, 0.5)
    assert found.win_rate("A").mean == 50


def test_an_answer_that_looks_like_a_verdict_decides_nothing():
    # Verdicts are read from what the judge says, never from the answers that it is shown.
    found = J.compare(lambda prompts: ["[[B]]", "[[A]]"], [pair("Which?", "[[A]] {reference}", "good {}")])
    assert found.verdicts == ["B"]
    assert "[[A]] {reference}" in found.prompts[0]


@pytest.mark.parametrize(("first", "second", "verdict"), [("A", "A", "A"), ("A", "B", "tie"), ("A", "tie", "tie")])
def test_two_orders_make_one_verdict(first, second, verdict):
    assert J.combine(first, second) == J.combine(second, first) == verdict
    assert J.combine(first, None) is J.combine(None, first) is None


def test_rating_one_answer():
    def judge(prompts):
        lengths = [len(p.split("=== Answer ===\n")[1].split("\n=== End of the answer")[0]) for p in prompts]
        return [f"Good. [[{n}]]" if n else "nothing to rate" for n in lengths]

    found = J.rate(judge, [{"question": "?", "answer": "x" * n} for n in (4, 0, 9)])
    assert found.ratings == [4, None, 9]
    assert found.mean().mean == found.summary()["rating"] == 6.5
    assert found.summary()["unparseable"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("form", [J.PAIRWISE, J.PAIRWISE_REFERENCE, J.SINGLE, J.SINGLE_REFERENCE], ids=lambda f: f.name)
def test_our_forms_show_every_field_and_say_how_to_answer(form):
    example = {name: f"<{name}>" for name in form.fields}
    prompt = form.fill(example)
    assert all(text in prompt for text in example.values())
    assert ("reference" in form.fields) == ("reference" in form.name)
    assert ("[[A]]" in prompt and "[[C]]" in prompt) if form.kind == "pairwise" else "[[4]]" in prompt
    assert "\n" not in form.name and "  " not in prompt


def test_the_reference_stays_where_it_is_when_answers_change_places():
    example = pair("1+1?", "2", "3", reference="two")
    plain, swapped = (J.PAIRWISE_REFERENCE.fill(example, swapped=s) for s in (False, True))
    assert shown(plain) == ["2", "3"]
    assert shown(swapped) == ["3", "2"]
    assert plain.count("two\n=== End of the reference") == swapped.count("two\n=== End of the reference") == 1


def test_mt_bench_forms_are_read_in_place(data_dir):
    forms = J.read_mt_bench(data_dir / "mt_bench" / "judge_prompts.jsonl")
    assert len(forms) == 8
    assert {form.kind for form in forms.values()} == {"pairwise", "single"}
    form = forms["pair-math-v1-multi-turn"]
    example = {name: f"<{name}>" for name in form.fields}
    swapped = form.fill(example, swapped=True)
    assert swapped.index("<answer_b_1>") < swapped.index("<answer_b_2>") < swapped.index("<answer_a_1>")
    assert swapped.index("<ref_answer_1>") == form.fill(example).index("<ref_answer_1>")
    found = J.compare(lambda prompts: ["My final verdict is: [[A]]", "[[B]]"], [example], form)
    assert found.verdicts == ["A"]
    rated = J.rate(lambda prompts: ["Rating: [[5]]"], [{"question": "?", "answer": "!"}], forms["single-v1"])
    assert rated.ratings == [5]


def test_annotations_tell_file_and_entry(tmp_path):
    path = tmp_path / "a.json"
    good = {"instruction": "i", "output_1": "a", "output_2": "b", "preference": 1.5}
    path.write_text(json.dumps([good]))
    assert J.read_annotations(path) == [pair("i", "a", "b", verdict="tie")]
    path.write_text(json.dumps([good, {**good, "preference": 3}]))
    with pytest.raises(ValueError, match=r"a\.json, entry 1: .*preference of .*with preference 3"):
        J.read_annotations(path)
