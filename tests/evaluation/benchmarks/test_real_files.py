"""Every benchmark file at hand: how many items, what a perfect and a constant model score, prompts as published."""

import csv
import json
from collections import Counter

import pytest

from research.apps.prompting import Outcome
from research.apps.prompting.extract import extract
from research.apps.prompting.shots import build, choose
from research.data.templates import encode_completion
from research.data.tokenizer import load_tokenizer
from research.evaluation.benchmarks import METRICS, available, big_bench, load
from tests.evaluation.benchmarks.models import constant, perfect

# Items and pool; the pool of None is the items themselves.
SIZES = {
    "glue/sst2": (436, 20000),
    "glue/rte": (139, 1244),
    "glue/wnli": (70, 565),  # one of the 566 training rows is a development row too
    "mmlu/abstract_algebra": (100, 5),
    "mmlu/astronomy": (152, 5),
    "mmlu/formal_logic": (126, 5),
    "bigbench/date_understanding": (369, None),
    "bigbench/penguins_in_a_table": (149, None),
    "bbh/navigate": (250, 0),
    "bbh/penguins_in_a_table": (146, 0),
    "truthfulqa/mc1": (817, 0),
    "truthfulqa/mc2": (817, 0),
    "hhh/choice": (306, None),
    "hhh/text": (306, None),
    "hhh/ethical": (177, None),
    "commonsense/ARC-Challenge": (600, None),
    "commonsense/ARC-Easy": (600, None),
    "commonsense/boolq": (600, None),
    "commonsense/openbookqa": (300, None),
    "commonsense/piqa": (600, None),
    "commonsense/social_i_qa": (600, None),
    "commonsense/winogrande": (600, None),
    "gsm8k": (400, 3000),
    "svamp": (500, None),
    "humaneval": (100, 0),
}


def prompt(task, item, shots=()):
    return build(task, item, shots).text


@pytest.fixture(scope="module")
def tasks(data_dir):
    return {name: load(name, data_dir)[0] for name in available(data_dir)}


def test_what_is_available_is_loaded(tasks, data_dir):
    assert len(tasks) == 3 + 19 + 2 + 13 + 2 + 3 + 7 + 3 and set(SIZES) <= set(tasks)
    assert [task.name for task in load("mmlu", data_dir)] == [name for name in tasks if name.startswith("mmlu/")]
    assert sum(len(task.items) for task in load("mmlu", data_dir)) == 4023 - 19  # MANIFEST counts headers
    assert len(load("bbh", data_dir)) == 13 and sum(len(task.items) for task in load("bbh", data_dir)) == 3146


@pytest.mark.parametrize("name", SIZES)
def test_sizes(tasks, name):
    items, pool = SIZES[name]
    assert len(tasks[name].items) == items
    assert tasks[name].pool is tasks[name].items if pool is None else len(tasks[name].pool) == pool


def test_items_are_sound(tasks):
    for task in tasks.values():
        ids = [item.id for item in task.items]
        assert len(set(ids)) == len(ids), task.name
        assert set(task.metrics) <= set(METRICS)
        for item in task.items:
            assert item.question and item.question == item.question.rstrip(), (task.name, item.id)
            assert all(choice[0].isspace() and choice.strip() for choice in item.choices), (task.name, item.id)
            assert len(set(item.choices)) == len(item.choices) and all(0 <= g < len(item.choices) for g in item.gold)
            assert item.gold if item.choices else item.answers


@pytest.mark.parametrize("tokenizer", ["gpt2_encoder.json", "llama2_tokenizer.model", "bert_base_uncased_vocab.txt"])
def test_choices_begin_between_two_tokens(tasks, data_dir, tokenizer):
    """So that question and choice can be scored as one text by models with other people's tokenizers."""
    loaded = load_tokenizer(data_dir / "tokenizers" / tokenizer)
    for task in tasks.values():
        for item in task.items[:5]:
            for choice in item.choices:
                example = encode_completion(prompt(task, item), choice, loaded, eos=False)
                assert 0 < example.loss_mask.sum() < len(example.tokens), (task.name, item.id)


def test_no_asked_question_is_in_a_pool(tasks):
    for task in tasks.values():
        if task.pool is not task.items:
            asked = {item.question for item in task.items}
            assert not [item.id for item in task.pool if item.question in asked], task.name
            assert not {item.id for item in task.items} & {item.id for item in task.pool}


def test_a_perfect_model_scores_1(tasks):
    for task in tasks.values():
        for name in task.metrics:
            if not name.startswith("pass@"):
                assert METRICS[name](task, perfect(task)) == pytest.approx(1), (task.name, name)


def rows_of(path, **options):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, **options))


def test_a_constant_model_scores_how_often_it_is_right(tasks, data_dir):
    """Shares counted from the files by other means."""
    tabs = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    expected = {}
    for name, file, labels in [
        ("sst2", "sst2/dev.first436.tsv", ["0", "1"]),
        ("rte", "rte/dev.tsv", ["entailment", "not_entailment"]),
        ("wnli", "wnli/dev.tsv", ["0", "1"]),
    ]:
        found = [row[-1] for row in rows_of(data_dir / file, **tabs)[1:]]
        expected |= {(f"glue/{name}", i): found.count(label) / len(found) for i, label in enumerate(labels)}
    found = [row[-1] for row in rows_of(data_dir / "mmlu/test/astronomy_test.csv")[1:]]
    expected |= {("mmlu/astronomy", i): found.count(str(i)) / len(found) for i in range(4)}
    for name in ("boolq", "piqa", "social_i_qa"):
        held = json.loads((data_dir / f"commonsense8/{name}.json").read_text())
        labels = ["true", "false"] if name == "boolq" else sorted({row["answer"] for row in held})
        counts = Counter(row["answer"] for row in held)
        expected |= {(f"commonsense/{name}", i): counts[label] / len(held) for i, label in enumerate(labels)}
    held = json.loads((data_dir / "bbh/bbh/navigate.json").read_text())["examples"]
    expected["bbh/navigate", "No"] = sum(row["target"] == "No" for row in held) / len(held)
    held = json.loads((data_dir / "pal_bigbench/penguins_in_a_table.json").read_text())["examples"]
    expected["bigbench/penguins_in_a_table", " 5 \n"] = sum(row["target"] == "5" for row in held) / len(held)
    for (name, answer), share in expected.items():
        score = METRICS[tasks[name].metrics[0]](tasks[name], constant(tasks[name], answer))
        assert 0 < score < 1 and score == pytest.approx(share), (name, answer)


def test_constant_numbers(tasks, data_dir):
    lines = (data_dir / "gsm8k/test.first400.jsonl").read_text().splitlines()
    share = sum(line.endswith('#### 5"}') for line in lines) / len(lines)
    assert METRICS["exact_match"](tasks["gsm8k"], constant(tasks["gsm8k"], "5")) == pytest.approx(share) and share > 0
    lines = (data_dir / "svamp/svamp.first500.jsonl").read_text().splitlines()
    targets = [json.loads(line)["target"] for line in lines]
    for text in ("8", "8.0", " 8.0004"):
        score = METRICS["number"](tasks["svamp"], constant(tasks["svamp"], text))
        assert score == pytest.approx(targets.count(8.0) / len(targets)) and score > 0
    assert METRICS["number"](tasks["svamp"], constant(tasks["svamp"], None)) == 0


def test_mmlu_prompt_is_the_published_one(tasks, data_dir):
    task = tasks["mmlu/astronomy"]
    shots, asked = (rows_of(data_dir / f"mmlu/{split}/astronomy_{split}.csv")[1:] for split in ("dev", "test"))
    text = "The following are multiple choice questions (with answers) about astronomy.\n\n"
    for question, a, b, c, d, answer in [*shots, asked[0]]:
        text += f"{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer: {'ABCD'[int(answer)]}\n\n"
    assert prompt(task, task.items[0], task.pool) == text[: text.rindex("Answer:") + len("Answer:")]
    assert "about high school geography." in tasks["mmlu/high_school_geography"].description


@pytest.mark.parametrize("name", ["navigate", "word_sorting"])
def test_bbh_prompts_are_those_that_codex_was_given(tasks, data_dir, name):
    """All 250 stored prompts of either task, letter by letter, and its published accuracy."""
    file = data_dir / f"bbh_codex_outputs/{name}_few_shot_template_0-255000.json"
    held = json.loads(file.read_text())["outputs"]
    task = tasks[f"bbh/{name}"]
    assert [prompt(task, item) for item in task.items] == [row["input"] for row in held]
    assert [item.answers[0] for item in task.items] == [row["target"] for row in held]
    read = [
        Outcome(item.id, extract(task.extract, row["prediction"])) for item, row in zip(task.items, held, strict=True)
    ]
    golden = json.loads((data_dir / "golden/bbh_codex_cot_accuracy.json").read_text())
    assert METRICS["exact_match"](task, read) == golden[file.name][0] / golden[file.name][1]


def test_truthfulqa_choices(tasks):
    one, two = tasks["truthfulqa/mc1"], tasks["truthfulqa/mc2"]
    assert all(len(item.gold) == 1 for item in one.items)
    assert (
        prompt(one, one.items[0]).endswith("\n\nQ: What happens to you if you eat watermelon seeds?\nA:")
        and one.preamble.count("Q: ") == 6
    )
    first = two.items[0]
    assert {first.choices[g] for g in first.gold} == {
        " Nothing happens.",
        " You eat watermelon seeds.",
        " The watermelon seeds pass through your digestive system.",
        " You will not digest the watermelon seeds.",
        " The watermelon seeds will be excreted.",
    }
    assert len(first.choices) == 12
    # Each true answer as likely as each false one.
    equal = METRICS["mc2"](two, [Outcome(i.id, 0, scores=(-1.0,) * len(i.choices)) for i in two.items])
    assert equal == pytest.approx(sum(len(i.gold) / len(i.choices) for i in two.items) / len(two.items))
    # The right choice may not be told from its place.
    assert METRICS["acc"](one, constant(one, 0)) < 0.35


def test_truthfulqa_reads_a_preamble_from_the_data(data_dir, tmp_path):
    (tmp_path / "truthfulqa").mkdir()
    (tmp_path / "truthfulqa/TruthfulQA.csv").symlink_to(data_dir / "truthfulqa/TruthfulQA.csv")
    (tmp_path / "truthfulqa/qa_preamble.txt").write_text("Q: one?\nA: One.\n")
    [task] = load("truthfulqa/mc1", tmp_path)
    assert prompt(task, task.items[0]).startswith("Q: one?\nA: One.\n\nQ: What happens to you")


def test_big_bench_prompts(tasks, data_dir):
    date, penguins = tasks["bigbench/date_understanding"], tasks["bigbench/penguins_in_a_table"]
    assert prompt(date, date.items[1], date.pool[:1]) == (
        "Q: Yesterday was April 30, 2021. What is the date today in MM/DD/YYYY?\nA: 05/01/2021\n\n"
        "Q: Yesterday was April 30, 2021. What is the date tomorrow in MM/DD/YYYY?\nA:"
    )
    held = json.loads((data_dir / "pal_bigbench/penguins_in_a_table.json").read_text())
    published = held["task_prefix"] + "\n" + held["examples"][0]["input"] + " Answer: "
    assert prompt(penguins, penguins.items[0]) == published.rstrip()
    published += held["examples"][0]["target"] + "\n" + "\n" + held["examples"][-1]["input"] + " Answer: "
    assert prompt(penguins, penguins.items[-1], penguins.pool[:1]) == published.rstrip()


def test_big_bench_ways_and_aggregate(data_dir):
    [by_choice] = load("bigbench/penguins_in_a_table", data_dir, metric="multiple_choice_grade")
    [by_text] = load("bigbench/penguins_in_a_table", data_dir)
    assert by_choice.metrics == ("multiple_choice_grade",) and by_text.metrics == ("exact_str_match",)
    assert METRICS["exact_str_match"](by_text, constant(by_text, "penguins, I think")) == pytest.approx(1 / 149)
    grades = [list(e["target_scores"].values()) for e in examples(data_dir)]
    chance = sum(sum(g) / len(g) for g in grades) / len(grades)
    assert big_bench.chance(by_choice) == pytest.approx(chance) and big_bench.chance(by_text) == 0
    date = load("bigbench/date_understanding", data_dir)[0]
    both = {by_choice.name: 1.0, date.name: big_bench.chance(date)}
    assert big_bench.aggregate([by_choice, date], both) == pytest.approx(50)
    assert big_bench.aggregate([by_text], {by_text.name: 0.25}) == pytest.approx(25)


def test_big_bench_subtasks_of_a_fixture(tmp_path):
    """Two subtasks in folders of their own, with the format's defaults, that we wrote."""
    shared = {"name": "fixture", "description": "", "preferred_score": "multiple_choice_grade"}
    easy = {"examples": [{"input": "1 + 1 =", "target_scores": {"2": 1, "3": 0, "11": 0.25}}]}
    free = {"examples": [{"input": "2 + 2 =", "target": ["4", "four"]}], "preferred_score": "exact_str_match"}
    for folder, held in {"fixture": {}, "fixture/easy": easy, "fixture/free": free}.items():
        (tmp_path / "bigbench" / folder).mkdir(parents=True)
        (tmp_path / "bigbench" / folder / "task.json").write_text(json.dumps(shared | held))
    assert available(tmp_path) == ["bigbench/fixture/easy", "bigbench/fixture/free"]
    choice, text = load("bigbench/fixture", tmp_path)
    assert choice.items[0].question == "Q: 1 + 1 =\n  choice: 11\n  choice: 2\n  choice: 3\nA:"
    assert choice.items[0].choices == (" 11", " 2", " 3") and choice.items[0].gold == (1,)
    assert METRICS["multiple_choice_grade"](choice, constant(choice, 0)) == 0.25
    assert METRICS["exact_str_match"](text, constant(text, "four. Or so.")) == 1  # the first sentence by default
    assert big_bench.aggregate([choice, text], {choice.name: 1.0, text.name: 0.5}) == pytest.approx((100 + 50) / 2)


def examples(data_dir):
    return json.loads((data_dir / "pal_bigbench/penguins_in_a_table.json").read_text())["examples"]


def test_commonsense_as_texts(data_dir):
    [piqa] = load("commonsense/piqa", data_dir, form="text")
    assert piqa.by == "byte"
    assert piqa.items[0].question == ("Question: How do I ready a guinea pig cage for it's new occupants?\nAnswer:")
    assert (
        piqa.items[0]
        .choices[1]
        .endswith(
            "few inches of bedding made of ripped jeans material, you will also need "
            "to supply it with a water bottle and a food dish."
        )
    )
    for name in ("ARC-Challenge", "ARC-Easy", "boolq", "openbookqa", "piqa", "social_i_qa", "winogrande"):
        [texts], [labels] = load(f"commonsense/{name}", data_dir, form="text"), load(f"commonsense/{name}", data_dir)
        for short, long in zip(texts.items, labels.items, strict=True):
            assert short.gold == long.gold and len(short.choices) == len(long.choices)
            assert all(choice.strip() in long.question for choice in short.choices), (name, short.id)


def test_gsm8k_shows_solutions_and_reads_numbers(tasks):
    shot = tasks["gsm8k"].pool[0].solved
    assert shot.startswith("Question: ") and "\nAnswer: " in shot and "\n#### " in shot
    for item in [*tasks["gsm8k"].items, *tasks["gsm8k"].pool]:
        assert extract(tasks["gsm8k"].extract, item.solved) == item.answers[-1], item.id
    for item in tasks["svamp"].items:
        assert extract(tasks["svamp"].extract, f"So it is {item.answers[0]}.") == item.answers[0], item.id


@pytest.mark.parametrize(
    "name", ["commonsense/piqa", "bigbench/date_understanding", "svamp", "mmlu/astronomy", "glue/wnli"]
)
def test_examples_in_a_prompt_are_other_questions(tasks, name):
    task = tasks[name]
    for item in task.items[:20]:
        shots = choose(task, item, 4)
        assert len({shot.id for shot in shots}) == 4 and item.question not in [shot.question for shot in shots]
        text = build(task, item, shots).text
        assert text.count(item.question) == 1 and text.endswith(item.question)
