"""What a judge is asked: forms with fields, of our own wording or MT-bench's, and the same question in both orders."""

import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

KINDS = ("pairwise", "single")


@dataclass(frozen=True)
class Form:
    """A prompt with {fields}.

    Attributes:
      kind: "pairwise" is answered by [[A]], [[B]] or [[C]] (tie), "single" by [[rating]].
      template: the text; a pairwise one has fields whose names hold answer_a and answer_b.
    """

    name: str
    kind: str
    template: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"form {self.name!r} is of kind {self.kind!r}; have {list(KINDS)}")
        wanted = ("answer_a", "answer_b") if self.kind == "pairwise" else ("answer",)
        absent = [name for name in wanted if not any(name in field for field in self.fields)]
        if absent:
            raise ValueError(f"form {self.name!r} has no field {absent}; it has {list(self.fields)}")

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names that an example must have."""
        found = [name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None]
        return tuple(dict.fromkeys(found))

    def fill(self, example: Mapping[str, str], *, swapped: bool = False) -> str:
        """The prompt for one example; `swapped` shows the two answers in the other order.

        Raises:
          ValueError: the example lacks a field, or it is no text.
        """
        source = {name: _other(name) if swapped else name for name in self.fields}
        wrong = [name for name in source.values() if not isinstance(example.get(name), str)]
        if wrong:
            raise ValueError(
                f"form {self.name!r} needs texts for {list(self.fields)}; {wrong} missing in {list(example)}"
            )
        return self.template.format_map({name: example[given] for name, given in source.items()})


def _other(field: str) -> str:
    """answer_a_1 -> answer_b_1 and back; other fields stay."""
    return re.sub(r"answer_(a|b)(?![a-z])", lambda m: "answer_" + {"a": "b", "b": "a"}[m[1]], field)


def filled(form: Form, kind: str, examples: Sequence[Mapping[str, str]], *, swapped: bool = False) -> list[str]:
    """The prompts of all examples; an error in one names its number."""
    if form.kind != kind:
        raise ValueError(f"form {form.name!r} is {form.kind}; expected a {kind} one")
    prompts = []
    for number, example in enumerate(examples):
        try:
            prompts.append(form.fill(example, swapped=swapped))
        except ValueError as error:
            raise ValueError(f"example {number}: {error}") from None
    return prompts


_PAIR_ENDING = (
    "First say in a few sentences what sets the two answers apart. Then close with one line that holds nothing but "
    "your verdict: [[A]] if answer A is better, [[B]] if answer B is better, [[C]] if neither is.\n\n"
)
_FAIR = (
    "Which answer comes first means nothing, and neither does which is longer: a short answer that says all that is "
    "needed is as good as a long one, and better than one that is padded.\n\n"
)
_TWO = "=== Answer A ===\n{answer_a}\n=== End of answer A ===\n\n=== Answer B ===\n{answer_b}\n=== End of answer B ==="
_ONE = "=== Answer ===\n{answer}\n=== End of the answer ==="
_QUESTION = "=== Question ===\n{question}\n=== End of the question ===\n\n"
_REFERENCE = "=== Reference answer, known to be right ===\n{reference}\n=== End of the reference answer ===\n\n"
_RATE_ENDING = (
    "First say in a few sentences what is good and what is wrong. Then close with one line that holds nothing but a "
    "whole number from 1 (useless) to 10 (could not be better) in double brackets, such as [[4]].\n\n"
)

PAIRWISE = Form(
    "pairwise",
    "pairwise",
    "Two assistants have answered the same question. Judge which of them serves the person who asked it better: who "
    "does what was asked, has the facts right, leaves nothing important out and can be understood.\n\n"
    + _FAIR
    + _PAIR_ENDING
    + _QUESTION
    + _TWO,
)
PAIRWISE_REFERENCE = Form(
    "pairwise-reference",
    "pairwise",
    "Two assistants have answered the same question, and the right answer is known. Hold each answer against it step "
    "by step and judge which of them is more correct; style only counts when both are equally correct.\n\n"
    + _FAIR
    + _PAIR_ENDING
    + _QUESTION
    + _REFERENCE
    + _TWO,
)
SINGLE = Form(
    "single",
    "single",
    "An assistant has answered a question. Judge how well the answer serves the person who asked it: whether it does "
    "what was asked, has the facts right, leaves nothing important out and can be understood.\n\n"
    + _RATE_ENDING
    + _QUESTION
    + _ONE,
)
SINGLE_REFERENCE = Form(
    "single-reference",
    "single",
    "An assistant has answered a question, and the right answer is known. Hold the answer against it step by step and "
    "judge how correct it is.\n\n" + _RATE_ENDING + _QUESTION + _REFERENCE + _ONE,
)


def read_mt_bench(path: str | Path) -> dict[str, Form]:
    """The forms of MT-bench's judge_prompts.jsonl by name, the system prompt in front of the template.

    See *Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena*, https://arxiv.org/abs/2306.05685.

    Raises:
      ValueError: a line that is no such form; names file and line.
    """
    forms = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            text = f"{row['system_prompt'].strip()}\n\n{row['prompt_template']}"
            forms[row["name"]] = Form(row["name"], row["type"], text)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}:{number}: no judge prompt (name, type, system_prompt, ...): {error}") from None
    return forms
