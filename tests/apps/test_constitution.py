"""Constitutional AI as text, against the files that were published with the paper and plain arithmetic."""

import json
import math
import re

import numpy as np
import pytest

from research.apps.constitution import (
    ASSISTANT,
    CHOICES,
    HUMAN,
    Constitution,
    Principle,
    ask_choice,
    ask_critique,
    ask_reasons,
    ask_revision,
    ask_verdict,
    by_writing,
    prefer,
    revise,
    soft_label,
    supervised,
)
from research.apps.constitution_files import PUBLISHED, dialogue, read_constitution, read_revisions, read_scored

OWN = Constitution(
    tuple(Principle(name, f"Is it {name}?", f"Make it {name}.") for name in ("calm", "kind", "short")),
    ("Choose the calm one.", "Choose the kind one."),
)


@pytest.fixture(scope="module")
def folder(data_dir):
    return data_dir / "constitutional_ai"


@pytest.fixture(scope="module")
def published(folder):
    return read_constitution(folder)


def raw(folder, part):
    return json.loads((folder / PUBLISHED[part]).read_text(encoding="utf-8"))


def test_published_principles_are_taken_apart_and_put_together_again(folder, published):
    given = raw(folder, "principles")
    assert [p.name for p in published.principles] == list(given) and len(given) == 16
    for principle in published.principles:
        asked = ask_critique("\n\nHuman: q\n\nAssistant:", "a", principle)
        assert asked == "\n\nHuman: q\n\nAssistant: a" + given[principle.name]["prompt"][0]
        more = ask_revision("\n\nHuman: q\n\nAssistant:", "a", principle, "c")
        assert more == asked + " c" + given[principle.name]["edit_request"]


def test_published_examples_come_back_letter_by_letter(folder, published):
    """One of the five has no "Human:" at its end, where the next dialogue would begin."""
    given = raw(folder, "examples")
    assert [one.text for one in published.examples] == [text.removesuffix(HUMAN) for text in given]
    assert len(given) == 5 and [one.prompt.count(HUMAN) for one in published.examples] == [2, 1, 1, 2, 2]


def test_the_306_published_comparisons_are_reproduced(folder, published):
    """Each row has both dialogues and the question that was made of them, with the second principle of comparisons."""
    rows = [json.loads(line) for line in (folder / "438HHHEvaluations.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        before, mark, better = row["text_correct"].rpartition(ASSISTANT)
        worse = row["text_incorrect"].removeprefix(before + mark)
        answers = (better, worse) if row["corrects"] == [CHOICES[0]] else (worse, better)
        assert ask_choice(before + mark, *answers, published.comparisons[1]) == row["prompt"]
    assert len(rows) == 306


def test_published_reasoning_is_reproduced(folder, published):
    """Each of the six is a question, reasons and a verdict; two lack blank lines in front, one the letters (H), (A)."""
    for entry in raw(folder, "reasoned"):
        text = "\n\n" + entry["prompt"].strip().replace(
            "a human and an assistant:", "a human (H) and an assistant (A):"
        )
        turns, options = text.split("(A):", 1)[1].split("\n\n{}")
        first, second = re.findall(r"\n \([AB]\) \[\[\[(.*?)\]\]\]", options, re.S)
        prompt = re.sub(r"\n\nA:", ASSISTANT, re.sub(r"\n\nH:", HUMAN, turns)) + ASSISTANT
        reasons, verdict = options.split("step by step:")[1].split("\n\nHuman:\nSo the answer is:")
        asked = ask_reasons(prompt, first, second, "Choose well.")
        whole = text.replace("{}", "\nChoose well. Options:")
        assert re.sub(r"\s+", " ", ask_verdict(asked, reasons) + verdict) == re.sub(r"\s+", " ", whole)
        assert asked in whole and verdict in CHOICES
    assert len(published.reasoned) == 6
    shown = ask_reasons("\n\nHuman: q\n\nAssistant:", "a", "b", "Choose well.", published.reasoned[:2])
    assert shown.count("Choose well. Options:") == 3 and "{}" not in shown


def test_published_samples_are_read(folder, published):
    named = {p.name: p for p in published.principles}
    chains = read_revisions(folder / "LAMDA_SLMADISON.jsonl")
    lines = (folder / "LAMDA_SLMADISON.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(chains) == 13
    for chain, line in zip(chains, lines, strict=True):
        row = json.loads(line)
        assert len(chain) == len(row["cst"]) == 4
        assert all(one.principle == named[one.principle.name] for one in chain)
        assert [one.response for one in chain[1:]] == [one.revision for one in chain[:-1]]
        assert supervised([chain]) == [
            {"prompt": row["rl_prompt"], "completion": " " + row["cst"][-1]["revision"]["sample"].strip()}
        ]
    for name in ("LAMDA_HRLHF.jsonl", "LAMDA_RLMADISON.jsonl"):
        found = read_scored(folder / name)
        assert [len(one.answers) for one in found] == [17] * 13
        assert all(one.scores == tuple(sorted(one.scores, reverse=True)) for one in found)
        assert not any(HUMAN in answer for one in found for answer in one.answers)


def test_examples_stand_in_front_in_their_order(published):
    asked = []

    def write(prompts):
        asked.extend(prompts)
        return [f"said {len(asked)}"] * len(prompts)

    made = revise(write, [dialogue("why?")], ["because"], published, shots=2)
    before = published.examples[0].text + published.examples[1].text
    one = made[0][0]
    assert asked[0] == before + ask_critique(dialogue("why?"), "because", one.principle)
    assert asked[1] == before + ask_revision(dialogue("why?"), "because", one.principle, "said 1")
    shown = published.compared[:3]
    question = ask_choice(dialogue("why?"), "x", "y", "Choose.", shown)
    places = [question.index(text) for one in shown for text in (one.better, one.worse)]
    assert [a < b for a, b in zip(places[::2], places[1::2], strict=True)] == [False, True, False]
    assert re.findall(r"The answer is:(.*)", question) == [" (B)", " (A)", " (B)", ""]


def test_rounds_build_on_each_other_and_stop_at_the_next_part():
    def write(prompts):
        ends = "\n\nHuman: and now?"
        return [(" better" if p.endswith("Revision:") else f"  not {p.count('better')}") + ends for p in prompts]

    prompts = [dialogue(f"question {i}") for i in range(40)]
    chains = revise(write, prompts, ["worst"] * 40, OWN, rounds=3, seed=1)
    for chain in chains:
        assert [one.response for one in chain] == ["worst", "better", "better"]
        assert [one.critique for one in chain] == ["not 0", "not 1", "not 1"]
    drawn = [[one.principle.name for one in chain] for chain in chains]
    assert {name for names in drawn for name in names} == {"calm", "kind", "short"}
    assert len({tuple(names) for names in drawn}) > 10, "principles are drawn for each prompt and round"
    again = revise(write, prompts, ["worst"] * 40, OWN, rounds=3, seed=1)
    assert again == chains != revise(write, prompts, ["worst"] * 40, OWN, rounds=3, seed=2)
    assert revise(write, prompts, ["worst"] * 40, OWN, rounds=2, seed=1) == [chain[:2] for chain in chains]


@pytest.mark.parametrize("seed", range(4))
def test_soft_label_is_the_mean_share_of_both_orders(seed):
    generator = np.random.default_rng(seed)
    first, swapped = -generator.exponential(4, size=(2, 2))
    one = math.exp(first[0]) / (math.exp(first[0]) + math.exp(first[1]))
    other = math.exp(swapped[1]) / (math.exp(swapped[0]) + math.exp(swapped[1]))
    assert soft_label(first) == pytest.approx(one, abs=1e-12)
    assert soft_label(first, swapped) == pytest.approx((one + other) / 2, abs=1e-12)
    assert soft_label(first, first) == pytest.approx(0.5, abs=1e-12), "always (A) says nothing"
    assert soft_label(first, swapped, clamp=(0.4, 0.6)) == pytest.approx(min(max((one + other) / 2, 0.4), 0.6))
    assert soft_label([-2000.0, -2001.0]) == pytest.approx(1 / (1 + math.exp(-1)))
    assert soft_label([0.0, -np.inf]) == 1 and soft_label([-np.inf, 0.0], [0.0, -np.inf]) == 0


def test_pairs_are_labelled_in_both_orders_by_drawn_comparisons():
    def weigh(questions):
        """Prefers x, and (A) a little."""
        first = [re.search(r"\(A\) \[\[\[(.*?)\]\]\]", question)[1] for question, _ in questions]
        return [(-0.1, -2.0) if text == "x" else (-1.0, -0.8) for text in first]

    prompts = [dialogue(f"question {i}") for i in range(30)]
    answers = [(" x", "y "), ("y", "x"), ("x", "x "), ("", "x")] * 7 + [("x", "y")] * 2
    rows = prefer(weigh, prompts, answers, OWN, seed=3)
    sure = (1 / (1 + math.exp(-1.9)) + 1 / (1 + math.exp(-0.2))) / 2
    assert len(rows) == 16 and [row["prompt"] for row in rows[:3]] == [prompts[0], prompts[1], prompts[4]]
    for row in rows:
        assert row["preferred"] == pytest.approx(sure if row["chosen"] == " x" else 1 - sure)
        assert {row["chosen"], row["rejected"]} == {" x", " y"}
    assert {row["comparison"] for row in rows} == set(OWN.comparisons)


def test_an_assistant_without_log_probabilities_and_with_reasons(published):
    asked = []

    def write(prompts):
        asked.extend(prompts)
        return ["neither" if "question 1" in p else "It is (B), not (A)." for p in prompts]

    weigh = by_writing(write)
    assert weigh([("question 0", CHOICES), ("question 1", CHOICES)]) == [[-np.inf, 0.0], [0.0, 0.0]]
    with pytest.raises(ValueError, match="one class only"):
        prefer(weigh, [dialogue("question 0")], [("a", "b")], OWN)

    def decided(questions):
        assert all(q.endswith("\n\nHuman:\nSo the answer is:") and "step by step: because" in q for q, _ in questions)
        return [(0.0, -9.0) if "(A) [[[a]]]" in q.rpartition("Options:")[2] else (-9.0, 0.0) for q, _ in questions]

    rows = prefer(
        decided,
        [dialogue("why?")],
        [("a", "b")],
        published,
        think=lambda prompts: [" because\n\nHuman: x"] * len(prompts),
        clamp=(0.4, 0.6),
        shots=1,
    )
    assert rows[0]["preferred"] == 0.6
