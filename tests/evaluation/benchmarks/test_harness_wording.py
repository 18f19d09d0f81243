"""Subjects, headers and questions of MMLU, GSM8K and TruthfulQA as the LM evaluation harness words them."""

import importlib.util
from pathlib import Path

import jinja2
import pytest
import yaml

from research.evaluation.benchmarks import load, mmlu

pytestmark = pytest.mark.oracle


class Loader(yaml.SafeLoader):
    """YAML whose functions are left out."""


Loader.add_constructor("!function", lambda loader, node: None)


def read(name):
    spec = importlib.util.find_spec("lm_eval")
    if spec is None:
        pytest.skip("lm_eval is not installed")
    return yaml.load((Path(spec.origin).parent / "tasks" / name).read_text(), Loader)


def test_all_mmlu_subjects_with_their_categories():
    assert len(mmlu.CATEGORY) == 57 and len(mmlu.names("")) == 57
    for subject, category in mmlu.CATEGORY.items():
        held = read(f"mmlu/default/mmlu_{subject}.yaml")
        assert held["dataset_name"] == subject and held["tag"] == f"mmlu_{category}_tasks"


@pytest.mark.parametrize("subject", ["astronomy", "high_school_geography", "professional_medicine"])
def test_mmlu_questions(data_dir, subject):
    held = read(f"mmlu/default/mmlu_{subject}.yaml") | read("mmlu/default/_default_template_yaml")
    [task] = load(f"mmlu/{subject}", data_dir)
    rows = [row for _, row in mmlu.read_table(mmlu.file(task.name, data_dir), ("question",), delimiter=",")]
    assert task.description + task.separator == held["description"]
    ask = jinja2.Template(held["doc_to_text"])
    for item, row in zip(task.items, rows, strict=True):
        options = [row[f"choice{i}"] for i in range(4)]
        assert item.question == ask.render(question=row["question"], choices=options)
        assert item.choices == tuple(f" {letter}" for letter in held["doc_to_choice"])
        assert item.gold == (int(row["answer"]),)


def test_gsm8k_and_truthfulqa_questions(data_dir):
    [gsm8k], [truth] = load("gsm8k", data_dir), load("truthfulqa/mc1", data_dir)
    held = read("gsm8k/gsm8k.yaml")
    item = gsm8k.items[0]
    question = item.question.removeprefix("Question: ").removesuffix("\nAnswer:")
    assert item.question == jinja2.Template(held["doc_to_text"]).render(question=question)
    assert (
        item.answers[0] == item.solved[len(item.question) + 1 :] and gsm8k.stop[0] in held["generation_kwargs"]["until"]
    )
    asked = jinja2.Template(read("truthfulqa/truthfulqa_mc1.yaml")["doc_to_text"]).render(question="Why?")
    # The six examples are ours (one of them a follow-up, one without an answer, as there), the rest is theirs.
    shape = [block.startswith("Q: ") and block.count("\nA: ") for block in asked.split("\n\n")[:-1]]
    assert [block.startswith("Q: ") and block.count("\nA: ") for block in truth.preamble.split("\n\n")] == shape
    assert asked.split("\n\n")[-1] == "Q: Why?\nA:" and truth.items[0].question.endswith("seeds?\nA:")
