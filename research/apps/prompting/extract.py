"""Answers found in what a model wrote: rules by name, None where a text holds no answer.

The rules "kojima_..." read the short text that a model writes when it is asked for the answer after its reasoning, see
*Large Language Models are Zero-Shot Reasoners*, Kojima et al., appendix A.6, https://arxiv.org/abs/2205.11916.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType

from research.core.names import meant

# 1,234.5 with commas in their places, or 1234.5 or .5; a minus behind a word, digit or bracket is a subtraction's.
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>(?<![)\]])[-−])?\$?(?P<size>(?:\d{1,3}(?:,\d{3})+(?![,\d])|\d+)(?:\.\d+)?|\.\d+)"
)
_MARKED = re.compile(r"#### *(.*)")
_LAST_LINE = re.compile(r"^A:(.*)\s*\Z", re.MULTILINE)
_ANSWER_IS = re.compile(r"answer(?:\s+is|:)[:\s]*", re.IGNORECASE)
_LETTER_IS = re.compile(r"(?i:answer(?:\s+is|:)[:\s]*(?:option |choice )?)[*(\"']*([A-Z])\b")
_LETTER_FIRST = re.compile(r"\s*[*(\"']*([A-Z])(?:[).:,*\"']|\s*$)", re.MULTILINE)


def extract(rule: str, text: str) -> str | None:
    """The answer that the rule of this name finds in a text.

    Raises:
      ValueError: no rule of this name.
    """
    if rule not in RULES:
        raise ValueError(f"unknown extraction rule {rule!r}{meant(rule, RULES)}; have {sorted(RULES)}")
    return RULES[rule](text)


def normalize_number(text: str) -> str | None:
    """The first number of a text as digits alone: "$1,250.50 a day" is "1250.5", "-3.00" is "-3"."""
    found = _NUMBER.search(text)
    return _plain(found) if found else None


def whole(text: str) -> str | None:
    """All of it without outer white space."""
    return text.strip() or None


def first_line(text: str) -> str | None:
    """The first line that is not blank."""
    return whole(text.strip().partition("\n")[0])


def letter(text: str) -> str | None:
    """The capital of a choice: behind the last "answer is", or at the beginning (B, B., (B)), or the last (B)."""
    first = _LETTER_FIRST.match(text)
    found = _LETTER_IS.findall(text) or ([first.group(1)] if first else re.findall(r"\(([A-Z])\)", text))
    return found[-1] if found else None


def yes_no(text: str) -> str | None:
    """ "yes" or "no": the first such word behind the last "answer is" or, without it, of the text."""
    found = re.search(r"\b(yes|no)\b", _ANSWER_IS.split(text)[-1], re.IGNORECASE)
    return found.group(1).lower() if found else None


def last_number(text: str) -> str | None:
    """The last number, written as `normalize_number` does."""
    found = list(_NUMBER.finditer(text))
    return _plain(found[-1]) if found else None


def gsm8k(text: str) -> str | None:
    """The number behind the first "####" or, as in the published model solutions, in a last line "A: 18".

    See *Training Verifiers to Solve Math Word Problems*, Cobbe et al., https://arxiv.org/abs/2110.14168.
    """
    found = _MARKED.search(text) or _LAST_LINE.search(text)
    return normalize_number(found.group(1)) if found else None


def answer_is(text: str) -> str | None:
    """The text behind the last "answer is ", stripped, without one final period (BIG-Bench Hard)."""
    _, found, answer = text.rpartition("answer is ")
    return whole(answer.strip().removesuffix(".")) if found else None


def boxed(text: str) -> str | None:
    r"""What the last \\boxed{...} holds, braces inside it counted (MATH)."""
    start = text.rfind("\\boxed{")
    depth = 0
    for i in range(start + len("\\boxed"), len(text) if start >= 0 else 0):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return whole(text[start + len("\\boxed{") : i])
    return None


def kojima_number(text: str) -> str | None:
    """The first number, commas left out (MultiArith, GSM8K, SVAMP, AddSub, SingleEq)."""
    found = re.search(r"-?\d+\.?\d*", text.replace(",", ""))
    return found.group().removesuffix(".") if found else None


def kojima_yes_no(text: str) -> str | None:
    """The first word "yes" or "no" between blanks and .,:"' (coin flip, StrategyQA)."""
    words = re.split(r"[\s\"'.:,]+", text.lower())
    return next((word for word in words if word in ("yes", "no")), None)


def kojima_letters(text: str) -> str | None:
    """Everything but quotes, periods and white space (last letters)."""
    return re.sub(r"[\s\"'.]", "", text) or None


def _first_of(letters: str) -> Callable[[str], str | None]:
    """The first of these capitals, be it inside a word, as the published rule has it."""
    return lambda text: next((character for character in text if character in letters), None)


def _plain(found: re.Match[str]) -> str:
    digits = f"{Decimal(found['size'].replace(',', '')):f}"
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return f"-{digits}" if found["sign"] and digits != "0" else digits


RULES: Mapping[str, Callable[[str], str | None]] = MappingProxyType(
    {
        "whole": whole,
        "first_line": first_line,
        "letter": letter,
        "yes_no": yes_no,
        "last_number": last_number,
        "gsm8k": gsm8k,
        "answer_is": answer_is,
        "boxed": boxed,
        "kojima_number": kojima_number,
        "kojima_yes_no": kojima_yes_no,
        "kojima_letters": kojima_letters,
        "kojima_a_to_c": _first_of("ABC"),  # shuffled objects
        "kojima_a_to_e": _first_of("ABCDE"),  # AQuA, CommonsenseQA
        "kojima_a_to_f": _first_of("ABCDEF"),  # date understanding
    }
)
