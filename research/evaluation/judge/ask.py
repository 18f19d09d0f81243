"""The one thing a judge can do, and what happens when it does not."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Judge(Protocol):
    """Any callable from prompts to answers, one each; a `NoAnswer` where none came."""

    def __call__(self, prompts: list[str], /) -> list[str]: ...


class NoAnswer(str):
    """Stands where an answer should be; its text is the reason, in one line."""


def ask(judge: Judge, prompts: Sequence[str], read: Callable[[str], T | None]) -> tuple[list[str], list[T | None]]:
    """The judge's answers and what `read` makes of each; None for a `NoAnswer`. Answers that cannot be read are counted
    by the caller, but there must be one that can.

    Raises:
      ValueError: no prompt, a judge that gives something else than one text per prompt, or no readable answer at all.
    """
    if not prompts:
        raise ValueError("the judge was asked nothing: no examples were given")
    try:
        answers = list(judge(list(prompts)))
    except (TimeoutError, ConnectionError) as error:
        answers = [NoAnswer(f"{type(error).__name__}: {error}")] * len(prompts)
    strange = [type(answer).__name__ for answer in answers if not isinstance(answer, str)]
    if len(answers) != len(prompts) or strange:
        got = f"{len(answers)} answers" + (f", among them {strange[0]}" if strange else "")
        raise ValueError(f"a judge gives one text per prompt; asked {len(prompts)} prompts, it gave {got}")
    found = [None if isinstance(answer, NoAnswer) else read(answer) for answer in answers]
    if all(verdict is None for verdict in found):
        lost = sum(isinstance(answer, NoAnswer) for answer in answers)
        first = " ".join(answers[0].split())[:200]
        raise ValueError(
            f"the judge decided none of {len(prompts)} prompts: {lost} got no answer, {len(prompts) - lost} answers "
            f"hold no verdict in double brackets; the first: {first!r}"
        )
    return answers, found


def shares(answers: Sequence[str], found: Sequence[object]) -> dict[str, float]:
    """Which share of the answers could not be read, and which never came."""
    lost = sum(isinstance(answer, NoAnswer) for answer in answers)
    unread = sum(verdict is None for verdict in found) - lost
    return {"unparseable": unread / len(answers), "no_answer": lost / len(answers)}
