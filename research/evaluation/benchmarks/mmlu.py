"""MMLU: four-way multiple choice in 57 subjects, the five development rows of a subject as its examples.

See *Measuring Massive Multitask Language Understanding*, Hendrycks et al., https://arxiv.org/abs/2009.03300.
"""

from pathlib import Path

from research.apps.prompting import Item, Task

from .files import find, label_of, read_table, unasked

CATEGORIES = {
    "stem": [
        "abstract_algebra",
        "anatomy",
        "astronomy",
        "college_biology",
        "college_chemistry",
        "college_computer_science",
        "college_mathematics",
        "college_physics",
        "computer_security",
        "conceptual_physics",
        "electrical_engineering",
        "elementary_mathematics",
        "high_school_biology",
        "high_school_chemistry",
        "high_school_computer_science",
        "high_school_mathematics",
        "high_school_physics",
        "high_school_statistics",
        "machine_learning",
    ],
    "humanities": [
        "formal_logic",
        "high_school_european_history",
        "high_school_us_history",
        "high_school_world_history",
        "international_law",
        "jurisprudence",
        "logical_fallacies",
        "moral_disputes",
        "moral_scenarios",
        "philosophy",
        "prehistory",
        "professional_law",
        "world_religions",
    ],
    "social_sciences": [
        "econometrics",
        "high_school_geography",
        "high_school_government_and_politics",
        "high_school_macroeconomics",
        "high_school_microeconomics",
        "high_school_psychology",
        "human_sexuality",
        "professional_psychology",
        "public_relations",
        "security_studies",
        "sociology",
        "us_foreign_policy",
    ],
    "other": [
        "business_ethics",
        "clinical_knowledge",
        "college_medicine",
        "global_facts",
        "human_aging",
        "management",
        "marketing",
        "medical_genetics",
        "miscellaneous",
        "nutrition",
        "professional_accounting",
        "professional_medicine",
        "virology",
    ],
}
CATEGORY = {subject: category for category, subjects in CATEGORIES.items() for subject in subjects}
LETTERS = ("A", "B", "C", "D")
_NUMBERS = ("0", "1", "2", "3")


def names(root: str | Path) -> list[str]:
    """All 57 subjects: "mmlu/abstract_algebra" ..."""
    del root
    return [f"mmlu/{subject}" for subject in sorted(CATEGORY)]


def file(name: str, root: str | Path, split: str = "test") -> Path:
    """The file of a split; the default is the asked one."""
    subject = name.partition("/")[2]
    return find(root, [f"mmlu/{split}/{subject}_{split}.csv", f"{split}/{subject}_{split}.csv"])


def task(name: str, root: str | Path) -> Task:
    """One subject; its pool is the development rows in their published order (k = 5 shows all of them)."""
    subject = name.partition("/")[2]
    items = _items(file(name, root), "test", CATEGORY[subject])
    pool = _items(file(name, root, "dev"), "dev", CATEGORY[subject])
    return Task(
        name,
        items,
        metrics=("acc",),
        pool=unasked(pool, items),
        description=f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.",
        extract="letter",
    )


def _items(path: Path, split: str, category: str) -> list[Item]:
    """Rows of question, four options and answer; some copies name these columns and number the answers from 0."""
    columns = ("question", "choice0", "choice1", "choice2", "choice3", "answer")
    with path.open(encoding="utf-8-sig") as lines:
        named = lines.readline().strip() == ",".join(columns)
    rows = read_table(path, columns, delimiter=",", header=None if named else columns)
    return [
        Item(
            f"{split}/{i}",
            "\n".join([row["question"].strip(), *(f"{x}. {row[c]}" for x, c in _OPTIONS), "Answer:"]),
            tuple(f" {letter}" for letter in LETTERS),
            (label_of(row["answer"], _NUMBERS if named else LETTERS, where),),
            info={"category": category},
        )
        for i, (where, row) in enumerate(rows)
    ]


_OPTIONS = tuple((letter, f"choice{number}") for letter, number in zip(LETTERS, _NUMBERS, strict=True))
