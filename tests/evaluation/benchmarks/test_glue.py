"""GLUE and SuperGLUE on rows of our own in the published formats; wordings against the LM evaluation harness."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
import yaml

from research.apps.prompting import Outcome
from research.evaluation.benchmarks import METRICS, glue, load, superglue
from tests.evaluation.benchmarks.conftest import FIXTURE_SUPERGLUE
from tests.evaluation.benchmarks.models import constant, perfect

GLUE = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "mnli_mismatched", "qnli", "rte", "wnli")
SUPERGLUE = ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")


@pytest.fixture(scope="module")
def fixture_tasks(fixture_root):
    return {task.name: task for group in ("glue", "superglue") for task in load(group, fixture_root)}


def test_all_tasks_with_their_metrics(fixture_tasks):
    assert {name: task.metrics for name, task in fixture_tasks.items()} == {
        "glue/cola": ("matthews", "acc"),
        "glue/sst2": ("acc",),
        "glue/mrpc": ("acc", "f1"),
        "glue/stsb": ("pearson", "spearman"),
        "glue/qqp": ("acc", "f1"),
        "glue/mnli": ("acc",),
        "glue/mnli_mismatched": ("acc",),
        "glue/qnli": ("acc",),
        "glue/rte": ("acc",),
        "glue/wnli": ("acc",),
        "superglue/boolq": ("acc",),
        "superglue/cb": ("acc", "macro_f1"),
        "superglue/copa": ("acc",),
        "superglue/multirc": ("multirc_f1a", "multirc_em"),
        "superglue/record": ("record_f1", "record_em"),
        "superglue/rte": ("acc",),
        "superglue/wic": ("acc",),
        "superglue/wsc": ("acc",),
    }


def test_perfect_and_constant_models(fixture_tasks):
    for task in fixture_tasks.values():
        for metric in task.metrics:
            assert METRICS[metric](task, perfect(task)) == pytest.approx(1), (task.name, metric)
    of_0 = {
        ("glue/cola", "matthews"): 0,
        ("glue/cola", "acc"): 1 / 2,
        ("glue/mrpc", "acc"): 1 / 3,
        ("glue/mrpc", "f1"): 0,
        ("glue/stsb", "pearson"): 0,
        ("superglue/cb", "acc"): 1 / 2,
        ("superglue/cb", "macro_f1"): (2 / 3 + 0 + 0) / 3,
        ("superglue/multirc", "multirc_f1a"): 0,
        ("superglue/multirc", "multirc_em"): 0,
        ("superglue/record", "record_em"): 0,
        ("superglue/copa", "acc"): 1 / 2,
    }
    for (name, metric), expected in of_0.items():
        assert METRICS[metric](fixture_tasks[name], constant(fixture_tasks[name], 0)) == pytest.approx(expected), name
    # "yes" to every answer: three of five are right, no question is wholly right.
    always = constant(fixture_tasks["superglue/multirc"], 1)
    assert METRICS["multirc_f1a"](fixture_tasks["superglue/multirc"], always) == pytest.approx(2 * 3 / (5 + 3))
    assert METRICS["multirc_em"](fixture_tasks["superglue/multirc"], always) == 0
    half = perfect(fixture_tasks["superglue/multirc"])[:3] + always[3:]
    assert METRICS["multirc_em"](fixture_tasks["superglue/multirc"], half) == 1 / 2


def test_pools_hold_no_asked_row_and_no_cut_row(fixture_tasks):
    assert [item.question.split("\n")[0] for item in fixture_tasks["glue/sst2"].pool] == ["it drags"]
    assert [item.id for item in fixture_tasks["glue/qqp"].pool] == ["train/0"]
    assert [item.question[:4] for item in fixture_tasks["superglue/boolq"].pool] == ["Sand"]


def test_quotes_are_text_in_glue(fixture_tasks):
    assert fixture_tasks["glue/cola"].items[2].question.startswith('She said "no" twice.\nQuestion')
    assert len(fixture_tasks["glue/mrpc"].items) == 3  # an unpaired quotation mark joins no lines


def test_similarity_is_expected_from_probabilities(fixture_tasks):
    task = fixture_tasks["glue/stsb"]
    assert [item.gold for item in task.items] == [(5,), (3,), (0,)]
    chosen = [Outcome(item.id, item.gold[0]) for item in task.items]  # rounded, as no probabilities are given
    assert 0.99 < METRICS["pearson"](task, chosen) < 1 and METRICS["spearman"](task, chosen) == pytest.approx(1)


def test_superglue_questions_that_functions_make(fixture_tasks):
    record = fixture_tasks["superglue/record"].items[0]
    assert record.question + record.choices[1] == (
        "Ann Lee met Bob in Rome.\n\n  - Ann Lee flew to Rome.\n  - Bob waited.\n  - In the end Bob went home."
    )
    assert record.info["options"] == ("Ann Lee", "Bob", "Rome") and record.gold == (1,) and record.answers == ("Bob",)
    # Without highlights, and by hand: the harness's own code for ReCoRD does not load beside transformers 5.
    bare = {"passage": "Bob waited.\n", "query": "Then @placeholder left.", "entities": ["Bob"]}
    assert superglue._record(bare) + superglue._record_choices(bare)[0] == "Bob waited.\n\n  - Then Bob left."
    wsc = fixture_tasks["superglue/wsc"].items
    for item, name in zip(wsc, ("Ann", "Eve"), strict=True):
        assert item.question == (
            "Passage: Ann told Eve that *she* had won .\n"
            f'Question: In the passage above, does the pronoun "*she*" refer to "*{name}*"?\nAnswer:'
        )
    assert [item.gold for item in wsc] == [(1,), (0,)]
    assert fixture_tasks["superglue/multirc"].items[2].question == (
        "Ann and Bob went out. Cid slept.\nQuestion: Who went out?\nAnswer: Cid\nIs the answer correct?"
    )


def published(folder):
    """What the harness shows and offers for a row: its own templates, rendered by jinja."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None:
        pytest.skip("lm_eval is not installed")
    here = Path(spec.origin).parent / "tasks" / folder

    class Loader(yaml.SafeLoader):
        pass

    def function(loader, node):
        module, name = node.value.rsplit(".", 1)
        made = importlib.util.spec_from_file_location(f"published_{module}", here / f"{module}.py")
        loaded = importlib.util.module_from_spec(made)
        made.loader.exec_module(loaded)
        return getattr(loaded, name)

    Loader.add_constructor("!function", function)
    held = yaml.load((here / "default.yaml").read_text(), Loader)
    render = lambda text: lambda row: jinja2.Template(text).render(**row)  # noqa: E731
    ask = held["doc_to_text"] if callable(held["doc_to_text"]) else render(held["doc_to_text"])
    choices = held["doc_to_choice"]
    return ask, choices if callable(choices) else lambda row: [f" {choice}" for choice in choices]


@pytest.mark.oracle
@pytest.mark.parametrize("name", [name for name in GLUE if name not in ("stsb", "mnli_mismatched")])
def test_glue_is_worded_as_in_the_harness(fixture_root, fixture_tasks, name):
    ask, choices = published(f"glue/{name}")
    rows = glue._file_rows(glue.FORMS[name], glue.file(f"glue/{name}", fixture_root))
    for item, (_, row) in zip(fixture_tasks[f"glue/{name}"].items, rows, strict=True):
        stripped = {key: value.strip() for key, value in row.items()}
        assert item.question == ask(stripped) and list(item.choices) == choices(row)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["boolq", "cb", "copa", "rte", "wic"])
def test_superglue_is_worded_as_in_the_harness(fixture_tasks, name):
    ask, choices = published(f"super_glue/{name}")
    task = fixture_tasks[f"superglue/{name}"]
    folder = {"boolq": "BoolQ", "wic": "WiC"}.get(name, name.upper())
    for item, row in zip(task.items, FIXTURE_SUPERGLUE[f"{folder}/val.jsonl"], strict=True):
        assert item.question == ask(row) and list(item.choices) == choices(row)


BUILDER = """
import json, sys
import numpy as np
import tensorflow_datasets as tfds

F, TEXT = tfds.features, tfds.features.Text()

class Small(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, **settings):
        settings.setdefault("file_format", "array_record")
        super().__init__(**settings)

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=F.FeaturesDict(self.FIELDS), disable_shuffling=True)

    def _split_generators(self, manager):
        rows = json.load(open(sys.argv[2]))[self.name]
        return {split: self._generate_examples(rows[split]) for split in ("validation", "train")}

    def _generate_examples(self, rows):
        yield from enumerate(rows)

class SmallRte(Small):
    FIELDS = {"sentence1": TEXT, "sentence2": TEXT, "label": F.ClassLabel(names=["entailment", "not_entailment"])}

class SmallMultirc(Small):
    FIELDS = {"paragraph": TEXT, "question": TEXT, "answer": TEXT, "label": F.ClassLabel(names=["False", "True"]),
              "idx": F.FeaturesDict({"paragraph": np.int32, "question": np.int32, "answer": np.int32})}

builders = [SmallRte(data_dir=sys.argv[1]), SmallMultirc(data_dir=sys.argv[1])]
for builder in builders:
    builder.download_and_prepare()
print(json.dumps([str(builder.data_dir) for builder in builders]))
"""


def test_tfds_gives_the_same_items_as_files(fixture_root, fixture_tasks, tmp_path):
    rte = [row for _, row in glue._file_rows(glue.FORMS["rte"], glue.file("glue/rte", fixture_root))]
    flat = superglue._flat_multirc(FIXTURE_SUPERGLUE["MultiRC/val.jsonl"][0])
    shot = {"sentence1": "It rained.", "sentence2": "It was wet.", "label": "entailment"}
    (tmp_path / "rows.json").write_text(
        json.dumps(
            {
                "small_rte": {"validation": rte, "train": [shot, *rte]},
                "small_multirc": {"validation": flat, "train": flat},
            }
        )
    )
    (tmp_path / "small.py").write_text(BUILDER)
    command = [sys.executable, str(tmp_path / "small.py"), str(tmp_path / "data"), str(tmp_path / "rows.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    folders = json.loads(done.stdout.strip().splitlines()[-1])
    [task] = load("glue/rte", fixture_root, tfds=folders[0])
    assert task.items == fixture_tasks["glue/rte"].items
    assert [item.question.split("\n")[0] for item in task.pool] == ["It rained."]
    [task] = load("superglue/multirc", fixture_root, tfds=folders[1])
    assert task.items == fixture_tasks["superglue/multirc"].items and not task.pool
