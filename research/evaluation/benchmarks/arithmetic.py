"""Word problems whose answer is a number: GSM8K with its worked solutions, SVAMP with bare numbers.

See *Training Verifiers to Solve Math Word Problems*, Cobbe et al., https://arxiv.org/abs/2110.14168, and *Are NLP
Models really able to Solve Simple Math Word Problems?*, Patel et al., https://arxiv.org/abs/2103.07191.
"""

from pathlib import Path

from research.apps.prompting import Item, Task

from .files import find, read_objects, unasked


def names(root: str | Path) -> list[str]:
    """The two sets."""
    del root
    return ["gsm8k", "svamp"]


def file(name: str, root: str | Path, split: str = "test") -> Path:
    """The file of the asked rows, or of GSM8K's training rows."""
    if name == "svamp":
        return find(root, ["svamp/svamp.jsonl", "svamp/svamp.*.jsonl", "svamp.jsonl"])
    return find(root, [f"gsm8k/{split}.jsonl", f"gsm8k/{split}.*.jsonl"])


def task(name: str, root: str | Path) -> Task:
    """GSM8K, shots from its training rows, or SVAMP, shots from its other rows."""
    if name == "svamp":
        items = _svamp(file(name, root))
        return Task(name, items, metrics=("number",), pool=items, extract="last_number")
    items = _gsm8k(file(name, root), "test")
    try:
        pool = _gsm8k(file(name, root, "train"), "train")
    except FileNotFoundError:
        pool = []
    return Task(
        name,
        items,
        metrics=("exact_match",),
        pool=unasked(pool, items),
        extract="gsm8k",
        stop=("Question:",),
        max_new_tokens=256,
    )


def _gsm8k(path: Path, split: str) -> list[Item]:
    items = []
    for i, (where, row) in enumerate(read_objects(path, ["question", "answer"])):
        _, mark, number = row["answer"].rpartition("#### ")
        if not mark:
            raise ValueError(f"{where}: the answer has no '#### ' in front of its number")
        # The worked solution is what an example shows, the number what is compared.
        answers = (row["answer"].strip(), number.strip().replace(",", ""))
        items.append(Item(f"{split}/{i}", f"Question: {row['question'].strip()}\nAnswer:", answers=answers))
    return items


def _svamp(path: Path) -> list[Item]:
    return [
        Item(f"test/{i}", f"Question: {row['input'].strip()}\nAnswer:", answers=(_written(row["target"], where),))
        for i, (where, row) in enumerate(read_objects(path, ["input", "target"]))
    ]


def _written(value: float, where: str) -> str:
    """A number as people write it: 51, not 51.0."""
    if not isinstance(value, int | float):
        raise ValueError(f"{where}: the target {value!r} is no number")
    return str(int(value)) if value == int(value) else str(value)
