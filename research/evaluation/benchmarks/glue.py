"""GLUE from its published tab-separated files or from TFDS, nine tasks, each with its own metric.

See *GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding*, Wang et al.,
https://arxiv.org/abs/1804.07461. The development rows are asked (the test labels are not public); examples in prompts
come from the training rows. Questions are worded as in the LM evaluation harness, STS-B ours.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from research.apps.prompting import Item, Task

from .files import Rows, find, label_of, read_table, task_of_splits, tfds_rows


class Form(NamedTuple):
    """How one task is stored and asked.

    Attributes:
      folder: its name in GLUE. columns: field of `question` -> column of the file. label: the label's column.
      labels: as the file writes them, in TFDS's order, which is that of `choices`. metrics: the first is the usual one.
      dev, tfds_dev: the asked split. header: columns of a file that does not name them.
    """

    folder: str
    columns: Mapping[str, str]
    question: str
    choices: tuple[str, ...]
    labels: tuple[str, ...]
    label: str = "label"
    metrics: tuple[str, ...] = ("acc",)
    dev: str = "dev"
    tfds_dev: str = "validation"
    header: tuple[str, ...] | None = None


_BINARY = ("0", "1")
_ENTAILED = ("entailment", "not_entailment")
_PAIR = {"sentence1": "sentence1", "sentence2": "sentence2"}
_MNLI = Form(
    "MNLI",
    {"premise": "sentence1", "hypothesis": "sentence2"},
    "{premise}\nQuestion: {hypothesis} True, False or Neither?\nAnswer:",
    (" True", " Neither", " False"),
    ("entailment", "neutral", "contradiction"),
    label="gold_label",
    dev="dev_matched",
    tfds_dev="validation_matched",
)

FORMS = {
    "cola": Form(
        "CoLA",
        {"sentence": "sentence"},
        "{sentence}\nQuestion: Does this sentence make sense?\nAnswer:",
        (" no", " yes"),
        _BINARY,
        metrics=("matthews", "acc"),
        header=("source", "label", "mark", "sentence"),
    ),
    "sst2": Form(
        "SST-2",
        {"sentence": "sentence"},
        "{sentence}\nQuestion: Is this sentence positive or negative?\nAnswer:",
        (" negative", " positive"),
        _BINARY,
    ),
    "mrpc": Form(
        "MRPC",
        {"sentence1": "#1 String", "sentence2": "#2 String"},
        "Sentence 1: {sentence1}\nSentence 2: {sentence2}\nQuestion: Do both sentences mean the same thing?\nAnswer:",
        (" no", " yes"),
        _BINARY,
        label="Quality",
        metrics=("acc", "f1"),
    ),
    "stsb": Form(
        "STS-B",
        _PAIR,
        "Sentence 1: {sentence1}\nSentence 2: {sentence2}\n"
        "Question: How similar are both sentences, from 0 (unrelated) to 5 (the same)?\nAnswer:",
        tuple(f" {n}" for n in range(6)),
        (),
        label="score",
        metrics=("pearson", "spearman"),
    ),
    "qqp": Form(
        "QQP",
        {"question1": "question1", "question2": "question2"},
        "Question 1: {question1}\nQuestion 2: {question2}\nQuestion: Do both questions ask the same thing?\nAnswer:",
        (" no", " yes"),
        _BINARY,
        label="is_duplicate",
        metrics=("acc", "f1"),
    ),
    "mnli": _MNLI,
    "mnli_mismatched": _MNLI._replace(dev="dev_mismatched", tfds_dev="validation_mismatched"),
    "qnli": Form(
        "QNLI",
        {"question": "question", "sentence": "sentence"},
        "{question}\n{sentence}\nQuestion: Does this response answer the question?\nAnswer:",
        (" yes", " no"),
        _ENTAILED,
    ),
    "rte": Form(
        "RTE",
        _PAIR,
        "{sentence1}\nQuestion: {sentence2} True or False?\nAnswer:",
        (" True", " False"),
        _ENTAILED,
    ),
    "wnli": Form(
        "WNLI",
        _PAIR,
        "{sentence1}\nQuestion: {sentence2} True or False?\nAnswer:",
        (" False", " True"),
        _BINARY,
    ),
}


def names(root: str | Path) -> list[str]:
    """All tasks: "glue/cola" ..."""
    del root
    return [f"glue/{name}" for name in FORMS]


def file(name: str, root: str | Path, split: str = "") -> Path:
    """The file of a split; the default is the asked one."""
    name = name.partition("/")[2]
    form = FORMS[name]
    lower = form.folder.lower().replace("-", "")
    split = split or form.dev
    folders = (f"glue/{form.folder}", form.folder, f"glue/{lower}", lower)
    return find(root, [f"{folder}/{split}{rest}.tsv" for folder in folders for rest in ("", ".*")])


def task(name: str, root: str | Path, *, tfds: str | Path = "") -> Task:
    """One task; `tfds` reads a folder that TFDS prepared as array_record, or a registered name with `root` as data_dir.

    The names of TFDS's own GLUE are known only where TensorFlow is installed.
    """
    form = FORMS[name.partition("/")[2]]
    if tfds:
        columns = [*form.columns, "label"]
        asked, pool = (tfds_rows(tfds, split, root, columns) for split in (form.tfds_dev, "train"))
    else:
        asked = _file_rows(form, file(name, root))
        try:
            pool = _file_rows(form, file(name, root, "train"))
        except FileNotFoundError:
            pool = []
    return task_of_splits(name, form.metrics, partial(_item, form), "dev", asked, pool)


def _file_rows(form: Form, path: Path) -> Rows:
    """Rows with the names that TFDS gives to the fields."""
    columns = [*form.columns.values(), form.label]
    rows = read_table(path, columns, header=form.header, skip_short=form.folder == "QQP")  # QQP has a few cut lines
    fields = {**form.columns, "label": form.label}
    return [(where, {field: row[column] for field, column in fields.items()}) for where, row in rows]


def _item(form: Form, key: str, row: dict, where: str) -> Item:
    texts = {field: str(row[field]).strip() for field in form.columns}
    if form.folder == "MNLI" and not texts["hypothesis"].endswith("."):
        texts["hypothesis"] += "."
    question = form.question.format(**texts)
    if form.labels:
        return Item(key, question, form.choices, (label_of(row["label"], form.labels, where),))
    try:
        value = float(row["label"])
    except ValueError:
        value = -1.0
    if not 0 <= value <= len(form.choices) - 1:
        raise ValueError(f"{where}: score {row['label']!r} is no number from 0 to {len(form.choices) - 1}")
    return Item(key, question, form.choices, (round(value),), info={"value": value})
