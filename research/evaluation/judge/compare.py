"""Pairwise judging: each pair is shown in both orders, and only what survives the exchange counts as a win."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from research.evaluation.text_metrics import Interval

from .ask import Judge, ask, shares
from .prompts import PAIRWISE, Form, filled
from .verdicts import read_verdict
from .win_rate import win_rate

OTHER = {"A": "B", "B": "A", "tie": "tie", None: None}


@dataclass(frozen=True)
class Comparison:
    """What a judge said about n pairs.

    Attributes:
      verdicts: [n] "A", "B", "tie", or None where an answer was missing or could not be read.
      orders: what each order alone says, about the systems (not about the places): one list [n], or two.
      prompts, answers: all that was asked and said, order by order.
    """

    verdicts: list[str | None]
    orders: list[list[str | None]]
    prompts: list[str]
    answers: list[str]

    def win_rate(self, system: str = "A") -> Interval:
        """Per cent of the decided pairs that `system` wins, ties counted half."""
        return win_rate(self.verdicts, system)

    def summary(self) -> dict[str, float]:
        """Shares: of wins and ties among decided pairs, of answers that failed, and how much the place decides.

        Among pairs with two readable answers, `consistent` says the same in both orders, `prefers_first` picks
        whichever answer stands first, `prefers_second` the other; what is left calls one order a tie.
        """
        decided = Counter(v for v in self.verdicts if v is not None)
        n = max(decided.total(), 1)
        found = {"pairs": len(self.verdicts), "decided": decided.total() / len(self.verdicts)}
        found |= {"wins_a": decided["A"] / n, "wins_b": decided["B"] / n, "ties": decided["tie"] / n}
        found |= shares(self.answers, [v for order in self.orders for v in order])
        if len(self.orders) == 2:
            both = [pair for pair in zip(*self.orders, strict=True) if None not in pair]
            share = lambda wanted: sum(wanted(pair) for pair in both) / max(len(both), 1)  # noqa: E731
            found["consistent"] = share(lambda pair: pair[0] == pair[1])
            found["prefers_first"] = share(lambda pair: pair == ("A", "B"))
            found["prefers_second"] = share(lambda pair: pair == ("B", "A"))
        return found


def compare(
    judge: Judge, examples: Sequence[Mapping[str, str]], form: Form = PAIRWISE, *, both_orders: bool = True
) -> Comparison:
    """Asks about every pair, in both orders unless told otherwise, all prompts in one call of the judge.

    examples: mappings with the form's fields, such as question, answer_a, answer_b.

    Raises:
      ValueError: a form of the other kind, a missing field (names the example), or a judge that decides nothing.
    """
    prompts = filled(form, "pairwise", examples)
    if both_orders:
        prompts += filled(form, "pairwise", examples, swapped=True)
    answers, found = ask(judge, prompts, read_verdict)
    n = len(examples)
    orders = [found[:n], [OTHER[v] for v in found[n:]]] if both_orders else [found]
    verdicts = [combine(*pair) for pair in zip(*orders, strict=True)] if both_orders else list(found)
    return Comparison(verdicts, orders, prompts, answers)


def combine(first: str | None, second: str | None) -> str | None:
    """One verdict of two orders: what both say; a tie when they differ; none when one is missing."""
    if first is None or second is None:
        return None
    return first if first == second else "tie"
