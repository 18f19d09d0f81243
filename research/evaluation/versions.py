"""The same task asked differently: written worse, or about somebody else. Right answers stay what they were."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from research.apps.prompting import Item, Task

from .counterfactual import GENDERS, regender, rename
from .perturb import PERTURBATIONS

_CUT = "\x1f"  # stands in no text


def written_worse(task: Task, *, seed: int = 0) -> dict[str, Task]:
    """{perturbation: task} with every question perturbed; choices, and the examples in front, stay as they are."""
    return {
        name: replace(task, items=[replace(item, question=how(item.question, seed=seed)) for item in task.items])
        for name, how in PERTURBATIONS.items()
    }


def about_women_and_men(task: Task, *, seed: int = 0) -> dict[str, Task]:
    """{"female": task, "male": task}, all names and pronouns of one gender; items that speak of nobody are left out."""

    def way(to: str) -> Callable[[str], str]:
        return lambda text: regender(rename(text, gender=to, seed=seed), to)

    return _about(task, {to: way(to) for to in GENDERS})


def about_names(task: Task, groups: Sequence[str], *, seed: int = 0) -> dict[str, Task]:
    """{group: task} with first names of that group; items without a known name are left out."""
    return _about(task, {group: partial(rename, group=group, seed=seed) for group in groups})


def _about(task: Task, ways: Mapping[str, Callable[[str], str]]) -> dict[str, Task]:
    """One task per way, all of the same items: those that at least two ways make different texts of."""
    for way in ways.values():
        way("")  # an unknown group is refused here
    texts = {name: [_changed(way, _joined(item)) for item in task.items] for name, way in ways.items()}
    pairs = enumerate(zip(*texts.values(), strict=True))
    kept = [i for i, versions in pairs if None not in versions and len(set(versions)) > 1]
    return {
        name: replace(task, items=[_apart(task.items[i], str(changed[i])) for i in kept])
        for name, changed in texts.items()
    }


def _changed(way: Callable[[str], str], text: str) -> str | None:
    try:
        return way(text)
    except ValueError:  # more names in the text than the lists have
        return None


def _joined(item: Item) -> str:
    """Question, choices and answers in one text, so that a name becomes the same one everywhere."""
    return _CUT.join((item.question, *item.choices, *item.answers))


def _apart(item: Item, text: str) -> Item:
    question, *rest = text.split(_CUT)
    n = len(item.choices)
    return replace(item, question=question, choices=tuple(rest[:n]), answers=tuple(rest[n:]))
