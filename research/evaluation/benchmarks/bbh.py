"""BIG-Bench Hard: 27 tasks answered after a chain of thought that three worked examples show.

See *Challenging BIG-Bench Tasks and Whether Chain-of-Thought Can Solve Them*, Suzgun et al.,
https://arxiv.org/abs/2210.09261; prompts are the published files.
"""

import json
from pathlib import Path

from research.apps.prompting import Item, Task

from .files import checked, find

NAMES = [
    "boolean_expressions",
    "causal_judgement",
    "date_understanding",
    "disambiguation_qa",
    "dyck_languages",
    "formal_fallacies",
    "geometric_shapes",
    "hyperbaton",
    "logical_deduction_five_objects",
    "logical_deduction_seven_objects",
    "logical_deduction_three_objects",
    "movie_recommendation",
    "multistep_arithmetic_two",
    "navigate",
    "object_counting",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "ruin_names",
    "salient_translation_error_detection",
    "snarks",
    "sports_understanding",
    "temporal_sequences",
    "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects",
    "tracking_shuffled_objects_three_objects",
    "web_of_lies",
    "word_sorting",
]
_FOLDERS = ("bbh/", "BIG-Bench-Hard/", "")


def names(root: str | Path) -> list[str]:
    """All 27 tasks: "bbh/boolean_expressions" ..."""
    del root
    return [f"bbh/{name}" for name in NAMES]


def file(name: str, root: str | Path) -> Path:
    """The file of the examples."""
    return find(root, [f"{folder}bbh/{name.partition('/')[2]}.json" for folder in _FOLDERS])


def task(name: str, root: str | Path) -> Task:
    """One task; description and preamble together are the published prompt."""
    path = file(name, root)
    prompt = find(root, [f"{folder}cot-prompts/{name.partition('/')[2]}.txt" for folder in _FOLDERS])
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["examples"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected JSON with 'examples' ({error!r})") from None
    # A note against training on the file stands above a line of dashes.
    text = prompt.read_text(encoding="utf-8").rpartition("-----\n")[2].strip()
    description, _, preamble = text.partition("\n\n")
    rows = checked([(f"{path}, example {i}", row) for i, row in enumerate(rows, start=1)], ["input", "target"])
    return Task(
        name,
        [
            Item(f"test/{i}", f"Q: {row['input']}\nA: Let's think step by step.", answers=(row["target"],))
            for i, (_, row) in enumerate(rows)
        ],
        metrics=("exact_match",),
        description=description,
        preamble=preamble,
        extract="answer_is",
        stop=("\n\n", "\nQ:"),
        max_new_tokens=1024,
    )
