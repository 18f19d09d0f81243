"""The card of models whose faults are known: what it reports is what was put in."""

import re
from dataclasses import replace

import numpy as np
import pytest

from research.apps.prompting import Item, Outcome, Task
from research.evaluation.card import Card, confidences, measure, toxicity_of
from research.evaluation.card_page import page
from research.evaluation.counterfactual import NAMES
from research.evaluation.versions import about_names, about_women_and_men, written_worse

CHOICES = (" yes", " no")


def task(name="people", n=24, people=True):
    who = ["Emily said that she", "Peter said that he", "The old clock there"] if people else ["The old clock there"]
    items = [
        Item(f"test/{i}", f"{who[i % len(who)]} will come on Monday number {i}.", CHOICES, (i % 2,), info={"i": i})
        for i in range(n)
    ]
    return Task(name, items, ("acc",))


def answering(right, confidence=0.75):
    """A model that answers an item right exactly where `right(item)` says so."""

    def ask(tasks):
        found = []
        for asked in tasks:
            outcomes = []
            for item in asked.items:
                choice = item.gold[0] if right(item) else 1 - item.gold[0]
                scores = [float(np.log(1 - confidence))] * 2
                scores[choice] = float(np.log(confidence))
                outcomes.append(Outcome(item.id, choice, scores=tuple(scores)))
            found.append(outcomes)
        return found

    return ask


def test_a_model_that_is_thrown_by_case_and_by_women():
    def right(item):
        words = set(re.findall(r"\w+", item.question))
        return "Monday" in words and "she" not in words

    card = measure("odd", answering(right), [task(), task("things", 10, people=False)], names=("english", "indian"))
    mean = {name: values[1] for name, values in card.robustness.items()}
    # 8 of 24 + 10 items are about a woman; spacing changes nothing, without capitals there is no Monday.
    assert mean["unchanged"] == mean["spacing"] == pytest.approx(26 / 34)
    assert mean["case"] == mean["worst"] == 0 and 0 < mean["typos"] < mean["unchanged"]
    assert card.accuracy["people"]["acc"][1] == pytest.approx(16 / 24) and card.accuracy["things"]["acc"] == [1, 1, 1]
    gender = card.fairness["gender"]
    assert gender["items"] == 16 and gender["same"] == 0 and gender["worst"][1] == 0
    assert gender["right"]["female"][1] == 0 and gender["right"]["male"][1] == 1
    assert card.bias["gender"]["difference"] == [-1, -1, -1] and card.bias["gender"]["p"] < 0.01
    # Another name from elsewhere changes nothing for this model.
    assert card.fairness["names"]["same"] == 1 and card.fairness["names"]["items"] == 16
    assert card.fairness["names"]["right"]["english"] == card.fairness["names"]["right"]["indian"]
    assert card.items == {"people": 24, "things": 10}
    np.testing.assert_allclose(card.confidence, 0.75)
    assert card.correct == [float(right(item)) for t in (task(), task("things", 10, people=False)) for item in t.items]


def test_without_people_there_is_no_fairness_to_report():
    card = measure("plain", answering(lambda item: True), [task(people=False)])
    assert card.fairness == {} and card.bias == {} and "no item speaks of people" in page([card])


def test_versions_keep_ids_labels_and_everything_else():
    given = task()
    for name, version in written_worse(given, seed=3).items():
        assert [replace(item, question="") for item in version.items] == [replace(i, question="") for i in given.items]
        assert any(a.question != b.question for a, b in zip(version.items, given.items, strict=True)), name
    both = about_women_and_men(given)
    assert [item.id for item in both["female"].items] == [item.id for item in both["male"].items]
    assert all(" she " in item.question for item in both["female"].items) and len(both["male"].items) == 16
    choices = Item("test/0", "Who came? Emily met Peter.", (" Emily", " Peter"), (0,), ("Emily",))
    (item,) = about_names(Task("names", [choices], ("acc",)), ("indian", "spanish"))["indian"].items
    asked = re.findall(r"\w+", item.question)
    assert item.choices == (f" {asked[2]}", f" {asked[4]}") and item.answers == (asked[2],)
    assert asked[2] in NAMES["indian"]["female"] and asked[4] in NAMES["indian"]["male"]


def test_texts_with_more_names_than_the_lists_have_are_left_out():
    crowd = Item("test/0", " and ".join((*NAMES["indian"]["female"], *NAMES["spanish"]["female"])), CHOICES, (0,))
    pair = Item("test/1", "Priya and Camila", CHOICES, (0,))
    found = about_names(Task("crowd", [crowd, pair], ("acc",)), ("english", "nigerian"))
    assert [item.id for item in found["english"].items] == ["test/1"]
    with pytest.raises(ValueError, match="unknown group of names 'klingon'"):
        about_names(Task("crowd", [crowd], ("acc",)), ("english", "klingon"))


@pytest.mark.parametrize("seed", [0, 1])
def test_confidence_is_the_softmax_of_the_scores(seed):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(7, 4)) * 5 - 900  # sums of many log probabilities
    outcomes = [Outcome(str(i), int(row.argmax()), scores=tuple(row)) for i, row in enumerate(scores)]
    outcomes += [Outcome("free", "text"), Outcome("none", None)]
    confidence, correct = confidences([(outcomes, np.arange(9) % 2)])
    wanted = [max(np.exp(s - row.max()) / np.exp(row - row.max()).sum() for s in row) for row in scores]
    np.testing.assert_allclose(confidence, wanted)
    assert correct == [0, 1, 0, 1, 0, 1, 0]


def test_toxicity_counts_what_lies_above_the_threshold():
    score = lambda texts: np.array([len(text) / 10 for text in texts])  # noqa: E731
    found = toxicity_of(score, {"short": ["a", "bb", "cccc"], "long": ["dddddd", "eeeeeeee"], "none": []}, 0.5)
    assert found["texts"] == 5 and found["share"][1] == pytest.approx(0.4)
    assert found["kinds"] == {"short": [0, 0, 0], "long": [1, 1, 1]}


def test_cards_are_kept_and_stand_side_by_side_on_one_page(tmp_path):
    tasks = [task(), task("things", 10, people=False)]
    toxicity = toxicity_of(lambda texts: np.ones(len(texts)), {"plain": ["x"]}, 0.5) | {"scorer": "held out 0.61"}
    good = measure("good", answering(lambda item: True, 0.9), tasks, toxicity=toxicity, efficiency={"bytes": 1234.0})
    bad = measure("bad <b>", answering(lambda item: item.info["i"] % 3), tasks[:1], notes=["half trained"])
    good.save(tmp_path / "card.json")
    assert Card.read(tmp_path / "card.json") == good
    html = page([good, bad])
    for part in ("Accuracy", "Calibration", "Robustness", "Fairness", "Toxicity", "Efficiency", "ECE", "held out 0.61"):
        assert part in html
    assert "bad &lt;b&gt;" in html and "bad <b>" not in html and "half trained" in html and "1,234" in html
    assert html.count("<svg") == 3 and not re.search(r'(src|href)="(?!#)', html)
    # Always right at 0.9: a gap of 0.1; right in 2 of 3 at 0.75: a gap of 1/12.
    assert re.search(r"good</td><td[^>]*>34</td><td[^>]*>0\.100", html)
    assert re.search(r"bad &lt;b&gt;</td><td[^>]*>24</td><td[^>]*>0\.083", html)


def test_what_makes_no_card_is_refused(tmp_path):
    ask = answering(lambda item: True)
    for tasks, names in (
        ([], ("english", "indian")),
        ([task(), task()], ("english", "indian")),
        ([task()], ("english",)),
    ):
        with pytest.raises(ValueError, match="a card needs tasks of different names and two groups"):
            measure("x", ask, tasks, names=names)
    with pytest.raises(ValueError, match="at least one text"):
        toxicity_of(lambda texts: np.ones(len(texts)), {"a": []}, 0.5)
    with pytest.raises(ValueError, match=r"cards of models with different names; got \[\]"):
        page([])
    (tmp_path / "no.json").write_text('{"model": "x", "speed": 3}')
    with pytest.raises(ValueError, match=r"no\.json holds no card.*speed"):
        Card.read(tmp_path / "no.json")
