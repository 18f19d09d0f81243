"""Eight commonsense sets in the format of LLM-Adapters: an instruction with its options, and the right option's name.

See *LLM-Adapters: An Adapter Family for Parameter-Efficient Fine-Tuning of Large Language Models*, Hu et al.,
https://arxiv.org/abs/2304.01933.
"""

import re
from pathlib import Path

from research.apps.prompting import Item, Task
from research.core.names import meant

from .files import find, label_of, read_objects

NAMES = ("ARC-Challenge", "ARC-Easy", "boolq", "hellaswag", "openbookqa", "piqa", "social_i_qa", "winogrande")
FORMS = ("label", "text")
_FORMAT = re.compile(r"\s*Answer format:\s*(\S+)\s*$")
_OPTION = re.compile(r"\s*\b(?:Answer|Solution|Option|Ending)\d+:\s*")
_LEAD = re.compile(r"^Please [^:]*:\s*")


def names(root: str | Path) -> list[str]:
    """All eight sets: "commonsense/boolq" ..."""
    del root
    return [f"commonsense/{name}" for name in NAMES]


def file(name: str, root: str | Path) -> Path:
    """The file of the test rows."""
    name = name.partition("/")[2]
    folders = ("commonsense8", "commonsense", "dataset")
    return find(root, [f"{folder}/{rest}" for folder in folders for rest in (f"{name}.json", f"{name}/test.json")])


def task(name: str, root: str | Path, *, form: str = "label") -> Task:
    """One set; examples in prompts come from its other rows, as the files hold test rows only.

    form: "label" asks for the name of an option, as LLM-Adapters does; "text" compares the options' texts behind the
    bare question, per byte, which a small language model can do long before it can follow an instruction.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}{meant(form, FORMS)}; have {list(FORMS)}")
    rows = read_objects(file(name, root), ["instruction", "answer"])
    items = [_item(f"test/{i}", row, where, form) for i, (where, row) in enumerate(rows)]
    return Task(name, items, metrics=("acc",), pool=items, by="sum" if form == "label" else "byte")


def _item(key: str, row: dict, where: str, form: str) -> Item:
    instruction = row["instruction"].strip()
    found = _FORMAT.search(instruction)
    if not found:
        raise ValueError(f"{where}: the instruction does not end with 'Answer format: option/option'")
    labels = found[1].split("/")
    gold = (label_of(row["answer"], labels, where),)
    if form == "label":
        return Item(key, instruction, tuple(f"\nthe correct answer is {label}" for label in labels), gold)
    body, *texts = _OPTION.split(instruction[: found.start()])
    texts = texts or labels  # true and false have no texts of their own
    if len(texts) != len(labels):
        raise ValueError(f"{where}: {len(texts)} options for the labels {labels}")
    body = _LEAD.sub("", body).removeprefix("question:").strip()
    return Item(key, f"Question: {body}\nAnswer:", tuple(f" {text.strip()}" for text in texts), gold)
