"""A registry of people and towns that changes from edition to edition, and questions about it.

What a model learned of one edition is wrong in part in the next. A question takes one look into the registry ("What is
the job of Anna Berg?") or two ("Who is the mayor of the town where Anna Berg lives?").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FIRST = (
    *("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Greta", "Henry", "Ida", "Jack", "Kate", "Leo"),
    *("Mara", "Nils", "Olga", "Paul", "Rosa", "Sven", "Tilda", "Udo", "Vera", "Walter", "Xenia", "Yann"),
)
LAST = (
    *("Adler", "Berg", "Crane", "Dahl", "Eklund", "Frost", "Grant", "Hill", "Irving", "Jansen", "Keller", "Lund"),
    *("Moss", "North", "Olsen", "Petrov", "Quinn", "Reed", "Stone", "Thorn", "Ulrich", "Vance", "West", "Young"),
)
TOWNS = tuple(a + b for a in ("Ash", "Birk", "Cold", "Deep", "Elm", "Fern") for b in ("ford", "ham", "mouth", "wick"))
JOBS = ("baker", "carpenter", "doctor", "farmer", "gardener", "lawyer", "miller", "painter", "sailor", "teacher")
COLOURS = ("black", "blue", "brown", "green", "grey", "orange", "purple", "red", "white", "yellow")

# Of each attribute: its sentence in the registry, its question, its question by way of a person's town.
_WORDS = {
    "town": ("{} lives in {}.", "In which town does {} live?", ""),
    "job": ("The job of {} is {}.", "What is the job of {}?", ""),
    "mayor": ("The mayor of {} is {}.", "Who is the mayor of {}?", "Who is the mayor of the town where {} lives?"),
    "flag": (
        "The flag of {} is {}.",
        "Which colour has the flag of {}?",
        "Which colour has the flag of the town where {} lives?",
    ),
}


class Question(NamedTuple):
    """A question with its answer.

    Attributes:
      titles: the entries to look up, in this order. found: the sentence to find in each; the last one holds the answer.
    """

    text: str
    answer: str
    titles: tuple[str, ...]
    found: tuple[str, ...]


@dataclass(frozen=True)
class Registry:
    """One edition: {title of an entry: {attribute: value}}, people first and then towns."""

    entries: Mapping[str, Mapping[str, str]]

    def passage(self, title: str) -> str:
        """The sentences of an entry."""
        return " ".join(_sentence(attribute, title, value) for attribute, value in self.entries[title].items())

    def questions(self) -> list[Question]:
        """One for each attribute of an entry, and of each person two about the town."""
        asked = []
        for title, entry in self.entries.items():
            for attribute, value in entry.items():
                found = _sentence(attribute, title, value)
                asked.append(Question(_WORDS[attribute][1].format(title), value, (title,), (found,)))
            if town := entry.get("town"):
                first = _sentence("town", title, town)
                for attribute, value in self.entries[town].items():
                    found = _sentence(attribute, town, value)
                    asked.append(Question(_WORDS[attribute][2].format(title), value, (title, town), (first, found)))
        return asked


def editions(seed: int, count: int, *, people: int, newcomers: int, changed: float) -> list[Registry]:
    """Editions of one registry: in each next one every fact is drawn anew at the rate `changed`.

    newcomers: people who are in the last edition only.

    Raises:
      ValueError: no edition, more people than names, or a rate outside 0 .. 1.
    """
    most = len(FIRST) * len(LAST)
    if count < 1 or people < 1 or newcomers < 0 or people + newcomers > most or not 0 <= changed <= 1:
        raise ValueError(
            f"at least 1 edition and 1 person, at most {most} people with newcomers and a rate from 0 to 1 are "
            f"needed, given {count=}, {people=}, {newcomers=}, {changed=}"
        )
    generator = np.random.default_rng([seed, 0])
    names = [f"{FIRST[i % len(FIRST)]} {LAST[i // len(FIRST)]}" for i in generator.permutation(most)]
    mayors = names[:people]
    values = {"town": TOWNS, "job": JOBS, "mayor": mayors, "flag": COLOURS}
    made: list[Registry] = []
    for edition in range(count):
        registered = mayors + (names[people : people + newcomers] if edition == count - 1 else [])
        entries: dict[str, dict[str, str]] = {}
        for title in (*registered, *TOWNS):
            attributes = ("mayor", "flag") if title in TOWNS else ("town", "job")
            before = made[-1].entries.get(title) if made else None
            entries[title] = {}
            for name in attributes:
                drawn = values[name][int(generator.integers(len(values[name])))]
                entries[title][name] = drawn if before is None or generator.random() < changed else before[name]
        made.append(Registry(entries))
    return made


def _sentence(attribute: str, title: str, value: str) -> str:
    return _WORDS[attribute][0].format(title, value)
