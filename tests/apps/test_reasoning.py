"""Chain of thought: stored runs of GPT-3 replayed word for word, votes over stored solutions of four systems."""

import json
import re
from collections import Counter

import pytest

from research.apps.prompting import Item, Task
from research.apps.prompting.extract import extract
from research.apps.protocol import Options
from research.apps.reasoning import few_shot, self_consistency, vote, zero_shot
from tests.apps.scripted import Scripted

SYSTEMS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@pytest.mark.parametrize(
    ("name", "ask", "rule", "published"),
    [
        ("multiarith", "Therefore, the answer (arabic numerals) is", "kojima_number", 78.6667),
        ("last_letters", "Therefore, the answer is", "kojima_letters", 57.6),
    ],
)
def test_zero_shot_replays_the_published_runs(data_dir, name, ask, rule, published):
    """Both prompts of each question are those of the log, character by character."""
    text = (data_dir / "zero_shot_cot_logs" / f"{name}_zero_shot_cot.log").read_text(encoding="utf-8")
    form = r"_th_sampling\n(Q: .*?)\npred_before : .*?\npred_after : (.*?)\n.*?^GT : (.*?)$"
    rows = re.findall(form, text, re.S | re.M)
    asked = [whole[: whole.rindex(ask) + len(ask)] for whole, *_ in rows]
    first = [one[: one.index("step by step.") + len("step by step.")] for one in asked]
    thoughts = [one[len(start) :].removesuffix(f" \n{ask}") for one, start in zip(asked, first, strict=True)]
    model = Scripted([*thoughts, *(whole[len(one) :] for (whole, *_), one in zip(rows, asked, strict=True))])
    questions = [re.match(r"Q: (.*?)\nA: ", whole, re.S).group(1) for whole, *_ in rows]
    chains = zero_shot(model, questions, ask=ask, rule=rule, options=Options(4000), answer_tokens=4000)
    assert [prompt for prompt, _ in model.asked] == first + asked
    assert [chain.prompt + chain.text for chain in chains] == [whole for whole, *_ in rows]
    other = [
        chain.text[-5:] for chain, (_, after, _) in zip(chains, rows, strict=True) if chain.answer != (after or None)
    ]
    assert other == (["3:46."] if name == "multiarith" else [])  # which the published run read as 346
    right = [chain.answer == gold for chain, (*_, gold) in zip(chains, rows, strict=True)]
    assert 100 * sum(right) / len(right) == pytest.approx(published, abs=1e-4)


def test_without_a_trigger_the_answer_is_asked_for_at_once():
    model = Scripted(lambda prompt: " 12, I think")
    (chain,) = zero_shot(model, ["6 + 6?"], trigger="")
    assert chain == ("Q: 6 + 6?\nA:", " Therefore, the answer (arabic numerals) is 12, I think", "12")
    assert len(model.asked) == 1 and model.asked[0][1].max_new_tokens == 32


ITEMS = [Item(f"{i}", f"Q: {i} + 1?\nA:", answers=(f"{i} and 1 is {i + 1}. The answer is {i + 1}.",)) for i in range(6)]
TASK = Task("sums", ITEMS[:2], ("exact_match",), pool=ITEMS, extract="answer_is", stop=("\n\n",), max_new_tokens=60)


@pytest.mark.parametrize("k", [1, 3])
def test_few_shot_shows_examples_with_their_steps(k):
    model = Scripted(lambda prompt: " so it is. The answer is 5.\n\nQ: more")
    chains = few_shot(model, TASK, TASK.items, k)
    for chain, item in zip(chains, TASK.items, strict=True):
        examples = chain.prompt.split("\n\n")
        assert examples[-1] == item.question and len(examples) == k + 1
        assert set(examples[:-1]) <= {other.solved for other in ITEMS if other.id != item.id}
        assert chain[1:] == (" so it is. The answer is 5.", "5")
    narrow = Scripted(lambda prompt: "", window=len(chains[0].prompt) + 59)  # one character short of all examples
    (chain,) = few_shot(narrow, TASK, TASK.items[:1], k)
    assert chain.prompt.count("Q:") == k and chain.answer is None


def test_votes_over_four_systems_are_those_of_a_plain_count(data_dir):
    lines = (data_dir / "gsm8k" / "example_model_solutions.first400.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, lines):
        answers = [extract("gsm8k", row[system]["solution"]) for system in SYSTEMS]
        found = vote(answers)
        counts = Counter(answer for answer in answers if answer is not None)
        winners = {answer for answer in counts if counts[answer] == max(counts.values())}
        assert found.answer == next(answer for answer in answers if answer in winners)
        assert found.agreement == counts[found.answer] / 4
        assert set(found.tied) == (winners if len(winners) > 1 else set())


def test_what_a_vote_says_of_ties_and_of_no_answer():
    assert vote(["3", None, "4", "4"]) == ("4", 0.5, ())
    assert vote(["3", "4", "4", "3", None]) == ("3", 0.4, ("3", "4"))
    assert vote([None, None]) == (None, 0.0, ())


def test_self_consistency_draws_and_votes():
    said = iter(["The answer is 7.", "The answer is 8.", "no idea", "The answer is 8.", *["The answer is 1."] * 4])
    model = Scripted(lambda prompt: next(said))
    options = Options(temperature=0.7, seed=5)
    (first, chains), (second, _) = self_consistency(model, ["a", "b"], "answer_is", options, samples=4)
    assert first == ("8", 0.5, ()) and second == ("1", 1.0, ())
    assert [chain.answer for chain in chains] == ["7", "8", None, "8"]
    assert [prompt for prompt, _ in model.asked] == ["a"] * 4 + ["b"] * 4
    for given, samples in ((Options(), 4), (options, 0)):
        with pytest.raises(ValueError, match="at least 1 sample drawn at a temperature above 0"):
            self_consistency(model, ["a"], "answer_is", given, samples=samples)
