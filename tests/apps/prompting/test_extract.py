"""Answers found in texts: stored outcomes of published runs, every row, and what people write."""

import json
import re

import pytest

from research.apps.prompting.extract import RULES, extract, normalize_number


def log_of(path):
    """(text, answer, right answer) of each question, and the accuracy that the log ends with."""
    text = path.read_text(encoding="utf-8")
    rows = re.findall(r"^pred_before : (.*?)\npred_after : (.*?)\n.*?^GT : (.*?)$", text, re.S | re.M)
    return rows, float(re.findall(r"^accuracy : (.*)$", text, re.M)[-1])


@pytest.mark.parametrize(
    ("name", "rule", "count", "published"),
    [
        ("multiarith", "kojima_number", 600, 78.6667),
        ("last_letters", "kojima_letters", 500, 57.6),
    ],
)
def test_zero_shot_chain_of_thought_logs(data_dir, name, rule, count, published):
    rows, logged = log_of(data_dir / "zero_shot_cot_logs" / f"{name}_zero_shot_cot.log")
    assert len(rows) == count
    found = [extract(rule, before) for before, _, _ in rows]
    assert [answer or "" for answer in found] == [after for _, after, _ in rows]
    accuracy = 100 * sum(answer == right for answer, (_, _, right) in zip(found, rows, strict=True)) / count
    assert accuracy == pytest.approx(logged, abs=1e-9) == pytest.approx(published, abs=1e-4)


def test_gsm8k_model_solutions(data_dir):
    path = data_dir / "gsm8k" / "example_model_solutions.first400.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    right = [extract("gsm8k", row["ground_truth"]) for row in rows]
    published = {"6b_finetuning": 22.25, "6b_verification": 39.0, "175b_finetuning": 36.5, "175b_verification": 56.0}
    assert len(rows) == 400 and None not in right
    for system, share in published.items():
        found = [extract("gsm8k", row[system]["solution"]) == gold for row, gold in zip(rows, right, strict=True)]
        assert found == [row[system]["is_correct"] for row in rows]
        assert 100 * sum(found) / len(found) == share


def test_gsm8k_answers_are_those_of_the_stored_solutions(data_dir):
    tests, solved = (
        [json.loads(line) for line in (data_dir / "gsm8k" / name).read_text(encoding="utf-8").splitlines()]
        for name in ("test.first400.jsonl", "example_model_solutions.first400.jsonl")
    )
    marked = {row["question"]: extract("gsm8k", row["answer"]) for row in tests}
    assert marked == {row["question"]: extract("gsm8k", row["ground_truth"]) for row in solved} and len(marked) == 400


def test_big_bench_hard_outputs(data_dir):
    counted = json.loads((data_dir / "golden" / "bbh_codex_cot_accuracy.json").read_text())
    files = {name: rest for name, rest in counted.items() if name.endswith(".json")}
    assert list(files.values()) == [[241, 250], [101, 250]]
    for name, (correct, total) in files.items():
        outputs = json.loads((data_dir / "bbh_codex_outputs" / name).read_text())["outputs"]
        assert len(outputs) == total
        assert sum(extract("answer_is", o["prediction"]) == o["target"] for o in outputs) == correct
        if name.startswith("navigate"):  # where the answers are words, both ways to read them agree
            assert all(
                extract("yes_no", o["prediction"]) == extract("answer_is", o["prediction"]).lower() for o in outputs
            )


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", "18"),
        ("$1,250.50 a day", "1250.5"),
        ("-3.00", "-3"),
        ("$-5", "-5"),
        ("-$5", "-5"),
        ("−4 °C", "-4"),
        ("100%", "100"),
        (".5", "0.5"),
        ("-0.0", "0"),
        ("1,000,000", "1000000"),
        ("12,5", "12"),
        ("0.1000000000000000000000000000000000001", "0.1000000000000000000000000000000000001"),
        ("10 - 3", "10"),
        ("x=-7", "-7"),
        ("CO2 and v2.5", None),
        ("none", None),
        ("", None),
    ],
)
def test_numbers(text, number):
    assert normalize_number(text) == number


@pytest.mark.parametrize(
    ("rule", "text", "answer"),
    [
        ("whole", " a\nb ", "a\nb"),
        ("whole", " \n", None),
        ("first_line", "\n\n a \nb", "a"),
        ("first_line", "  ", None),
        ("letter", "B", "B"),
        ("letter", " (C) because", "C"),
        ("letter", "D. 42", "D"),
        ("letter", "A man", None),
        ("letter", "A. is wrong, so the answer is (B).", "B"),
        ("letter", "The answer is: **C**", "C"),
        ("letter", "Answer: D\nas said", "D"),
        ("letter", "not (A) but (E)", "E"),
        ("letter", "the answer is A; no, the answer is B", "B"),
        ("letter", "the answer is apples", None),
        ("yes_no", "Yes, it does. No doubt.", "yes"),
        ("yes_no", "Not yes at first. So the answer is no.", "no"),
        ("yes_no", "nobody knows, yesterday", None),
        ("last_number", "3 + 4 = 7.", "7"),
        ("last_number", "16-8=8 and then $1,024.00!", "1024"),
        ("last_number", "from 10-3", "3"),
        ("last_number", "seven", None),
        ("gsm8k", "2+2=4\n#### $1,200", "1200"),
        ("gsm8k", "#### 5\n#### 6", "5"),
        ("gsm8k", "so 12\nA: 18", "18"),
        ("gsm8k", "A: 18\nand then 12", None),
        ("gsm8k", "it is 18", None),
        ("answer_is", "the answer is x. So the answer is (B).", "(B)"),
        ("answer_is", "So the answer is ...", ".."),
        ("answer_is", "(B)", None),
        ("boxed", r"$\boxed{1}$ no, $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        ("boxed", r"\boxed{\frac{1}{2}", None),
        ("boxed", "1/2", None),
        ("kojima_yes_no", ' :\n\n"Yes".', "yes"),
        ("kojima_yes_no", " not known", None),
        ("kojima_a_to_e", "Among them (E) is right", "A"),
        ("kojima_a_to_e", " F.", None),
        ("kojima_a_to_f", " F.", "F"),
        ("kojima_a_to_c", " D, then C", "C"),
    ],
)
def test_rules(rule, text, answer):
    assert extract(rule, text) == answer


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "text", ["", " ", "#### ", "A:", "answer is ", "\\boxed{", "{" * 5000, "-" * 5000, "1," * 5000]
)
def test_no_text_breaks_a_rule(rule, text):
    found = extract(rule, text)
    assert found is None or found.strip() == found != ""
