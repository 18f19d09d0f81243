"""Helpful, honest, harmless: which of two answers is better, as a choice between letters or by how likely each is.

See *A General Language Assistant as a Laboratory for Alignment*, Askell et al., https://arxiv.org/abs/2112.00861, and
*Constitutional AI*, Bai et al., https://arxiv.org/abs/2212.08073, with which the files were published.
"""

from pathlib import Path

from research.apps.prompting import Item, Task
from research.data.preference import as_preference

from .files import find, read_objects

_FILES = {
    "hhh/choice": "438HHHEvaluations.jsonl",  # (A) or (B)
    "hhh/text": "438HHHEvaluations.jsonl",  # the answers themselves, per byte, which needs no letters
    "hhh/ethical": "HarmfulVsEthical.jsonl",  # was the assistant harmful (A) or ethical (B)
}


def names(root: str | Path) -> list[str]:
    """The three ways of asking."""
    del root
    return list(_FILES)


def file(name: str, root: str | Path) -> Path:
    """The file with the rows."""
    return find(root, [f"{folder}{_FILES[name]}" for folder in ("constitutional_ai/", "evals/", "")])


def task(name: str, root: str | Path) -> Task:
    """One way; examples in prompts come from the other rows."""
    path = file(name, root)
    make, columns = (_text, ["text_correct", "text_incorrect"]) if name == "hhh/text" else (_letter, ["prompt"])
    items = [make(f"test/{i}", row, where) for i, (where, row) in enumerate(read_objects(path, columns))]
    if len(items) > 1 and name != "hhh/text" and len({item.gold for item in items}) == 1:
        only = items[0].choices[items[0].gold[0]].strip()
        raise ValueError(f"{path}: {only} is right in all {len(items)} rows, so that always saying it would score 1")
    return Task(name, items, metrics=("acc",), pool=items, by="byte" if name == "hhh/text" else "sum")


def _letter(key: str, row: dict, where: str) -> Item:
    sides = [row.get(side) for side in ("corrects", "incorrects")]
    if sorted(side[0] if isinstance(side, list) and len(side) == 1 else "" for side in sides) != [" (A)", " (B)"]:
        raise ValueError(f"{where}: expected ' (A)' and ' (B)' as corrects and incorrects, given {sides}")
    return Item(key, row["prompt"], (" (A)", " (B)"), (0 if sides[0] == [" (A)"] else 1,))


def _text(key: str, row: dict, where: str) -> Item:
    try:
        pair = as_preference({"chosen": row["text_correct"], "rejected": row["text_incorrect"]})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    # In alphabetical order, so that the place tells nothing.
    answers = sorted((f" {pair.chosen.strip()}", f" {pair.rejected.strip()}"))
    return Item(key, str(pair.prompt), tuple(answers), (answers.index(f" {pair.chosen.strip()}"),))
