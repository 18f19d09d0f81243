"""SuperGLUE from its published JSON Lines or from TFDS, eight tasks, each with its own metric.

See *SuperGLUE: A Stickier Benchmark for General-Purpose Language Understanding Systems*, Wang et al.,
https://arxiv.org/abs/1905.00537. The validation rows are asked; examples in prompts come from the training rows.
Questions are worded as in the LM evaluation harness, those of ReCoRD as in GPT-3's paper.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from research.apps.prompting import Item, Task

from .files import Rows, checked, find, label_of, read_objects, task_of_splits, tfds_rows

Row = dict[str, Any]

YES_NO = (" no", " yes")
_FALSE_TRUE = ("false", "true")
_CONNECTORS = {"cause": "because", "effect": "therefore"}


class Form(NamedTuple):
    """How one task is stored and asked.

    Attributes:
      folder: its name in SuperGLUE. columns: fields of a row, with TFDS's names. labels: in the order of the choices.
      ask: row -> question. choices: the same for all rows, or row -> choices.
    """

    folder: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    ask: Callable[[Row], str]
    choices: tuple[str, ...] | Callable[[Row], tuple[str, ...]] = YES_NO
    metrics: tuple[str, ...] = ("acc",)


def _copa(row: Row) -> str:
    # The period is dropped and the sentence goes on in either choice.
    return f"{row['premise'].strip().rstrip('.')} {_CONNECTORS[row['question']]}"


def _copa_choices(row: Row) -> tuple[str, ...]:
    return tuple(f" {text[:1].lower()}{text[1:]}" for text in (row["choice1"], row["choice2"]))


def _wic(row: Row) -> str:
    word = row["sentence1"][row["start1"] : row["end1"]]
    return (
        f"Sentence 1: {row['sentence1']}\nSentence 2: {row['sentence2']}\n"
        f"Question: Is the word '{word}' used in the same way in the two sentences above?\nAnswer:"
    )


def _wsc(row: Row) -> str:
    words, pronoun = row["text"].split(), row["span2_text"]
    # A few published places are off by some words, so the nearest one that holds the pronoun is taken.
    held = [i for i in range(len(words)) if " ".join(words[i:]).startswith(pronoun)]
    if not held:
        raise ValueError(f"the pronoun {pronoun!r} does not begin a word of {row['text']!r}")
    place = min(held, key=lambda i: abs(i - row["span2_index"]))
    before, rest = words[:place], " ".join(words[place:])[len(pronoun) :]
    passage = " ".join([*before, f"*{pronoun}*{rest}"])
    return (
        f'Passage: {passage}\nQuestion: In the passage above, does the pronoun "*{pronoun}*" refer to '
        f'"*{row["span1_text"]}*"?\nAnswer:'
    )


def _record(row: Row) -> str:
    text, *highlights = row["passage"].strip().split("\n@highlight\n")
    return "\n".join([f"{text}\n", *(f"  - {line}." for line in highlights)]).rstrip()


def _record_choices(row: Row) -> tuple[str, ...]:
    blank = "\n" if "\n@highlight\n" in row["passage"] else "\n\n"
    return tuple(f"{blank}  - {row['query'].replace('@placeholder', entity)}" for entity in row["entities"])


FORMS = {
    "boolq": Form(
        "BoolQ",
        ("passage", "question", "label"),
        _FALSE_TRUE,
        lambda row: f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:",
    ),
    "cb": Form(
        "CB",
        ("premise", "hypothesis", "label"),
        ("entailment", "contradiction", "neutral"),
        lambda row: f"{row['premise']}\nQuestion: {row['hypothesis']}. True, False, or Neither?\nAnswer:",
        (" True", " False", " Neither"),
        ("acc", "macro_f1"),
    ),
    "copa": Form(
        "COPA",
        ("premise", "choice1", "choice2", "question", "label"),
        ("choice1", "choice2"),
        _copa,
        _copa_choices,
    ),
    "multirc": Form(
        "MultiRC",
        ("paragraph", "question", "answer", "idx", "label"),
        _FALSE_TRUE,
        lambda row: f"{row['paragraph']}\nQuestion: {row['question']}\nAnswer: {row['answer']}\nIs the answer correct?",
        metrics=("multirc_f1a", "multirc_em"),
    ),
    "record": Form(
        "ReCoRD",
        ("passage", "query", "entities", "answers"),
        (),
        _record,
        _record_choices,
        ("record_f1", "record_em"),
    ),
    "rte": Form(
        "RTE",
        ("premise", "hypothesis", "label"),
        ("entailment", "not_entailment"),
        lambda row: f"{row['premise']}\nQuestion: {row['hypothesis']} True or False?\nAnswer:",
        (" True", " False"),
    ),
    "wic": Form("WiC", ("sentence1", "sentence2", "start1", "end1", "label"), _FALSE_TRUE, _wic),
    "wsc": Form("WSC", ("text", "span1_text", "span2_text", "span2_index", "label"), _FALSE_TRUE, _wsc),
}


def names(root: str | Path) -> list[str]:
    """All tasks: "superglue/boolq" ..."""
    del root
    return [f"superglue/{name}" for name in FORMS]


def file(name: str, root: str | Path, split: str = "val") -> Path:
    """The file of a split; the default is the asked one."""
    folder = FORMS[name.partition("/")[2]].folder
    places = (f"superglue/{folder}", f"super_glue/{folder}", folder)
    return find(root, [f"{place}/{split}.jsonl" for place in places])


def task(name: str, root: str | Path, *, tfds: str | Path = "") -> Task:
    """One task; `tfds` reads a folder that TFDS prepared as array_record, or a registered name with `root` as data_dir.

    The names of TFDS's own SuperGLUE are known only where TensorFlow is installed.
    """
    form = FORMS[name.partition("/")[2]]
    if tfds:
        asked, pool = (tfds_rows(tfds, split, root, form.columns) for split in ("validation", "train"))
    else:
        asked = _file_rows(form, file(name, root))
        try:
            pool = _file_rows(form, file(name, root, "train"))
        except FileNotFoundError:
            pool = []
    return task_of_splits(name, form.metrics, partial(_item, form), "val", asked, pool)


def _file_rows(form: Form, path: Path) -> Rows:
    """Rows as TFDS has them: one per answer of MultiRC and per query of ReCoRD, spans of WSC beside its text."""
    outer = {"MultiRC": ("passage",), "ReCoRD": ("passage", "qas"), "WSC": ("text", "target", "label")}
    rows: Rows = []
    for where, row in read_objects(path, outer.get(form.folder, form.columns)):
        try:
            rows += [(where, flat) for flat in _FLAT.get(form.folder, lambda row: [row])(row)]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{where}: no column {error}; expected {form.folder}'s published format") from None
    return checked(rows, form.columns)


def _flat_multirc(row: Row) -> list[Row]:
    passage = row["passage"]
    return [
        {
            "paragraph": passage["text"],
            "question": question["question"],
            "answer": answer["text"],
            "label": answer["label"],
            "idx": {"paragraph": row["idx"], "question": question["idx"], "answer": answer["idx"]},
        }
        for question in passage["questions"]
        for answer in question["answers"]
    ]


def _flat_record(row: Row) -> list[Row]:
    text = row["passage"]["text"]
    entities = sorted({text[e["start"] : e["end"] + 1] for e in row["passage"]["entities"]})  # the end is included
    return [
        {
            "passage": text,
            "query": qa["query"],
            "entities": entities,
            "answers": sorted({answer["text"] for answer in qa["answers"]}),
        }
        for qa in row["qas"]
    ]


_FLAT: Mapping[str, Callable[[Row], list[Row]]] = {
    "MultiRC": _flat_multirc,
    "ReCoRD": _flat_record,
    "WSC": lambda row: [{**row, **row["target"]}],
}


def _item(form: Form, key: str, row: Row, where: str) -> Item:
    try:
        question = form.ask(row)
        choices = form.choices if isinstance(form.choices, tuple) else form.choices(row)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
    if form.folder == "ReCoRD":
        entities, answers = tuple(row["entities"]), tuple(row["answers"])
        gold = tuple(i for i, entity in enumerate(entities) if entity in answers)
        if not gold:
            raise ValueError(f"{where}: none of the answers {list(answers)} is among the entities {list(entities)}")
        return Item(key, question, choices, gold, answers, {"options": entities})
    gold = (label_of(row["label"], form.labels, where),)
    info = {}
    if form.folder == "MultiRC":
        info = {"group": f"{row['idx']['paragraph']}/{row['idx']['question']}"}
    return Item(key, question, choices, gold, info=info)
