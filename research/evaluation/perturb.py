"""The same text written worse: typos, case, spacing. What it says, and so its label, stays.

Every perturbation is a function of the text and the seed alone: neither the order of the texts nor their number
changes what happens to one of them.
"""

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from research.core.names import meant

# The keys beside each letter on an English keyboard.
NEIGHBOURS = {
    **{"a": "qwsz", "b": "vghn", "c": "xdfv", "d": "serfcx", "e": "wsdr", "f": "drtgvc", "g": "ftyhbv"},
    **{"h": "gyujnb", "i": "ujko", "j": "huikmn", "k": "jiolm", "l": "kop", "m": "njk", "n": "bhjm", "o": "iklp"},
    **{"p": "ol", "q": "wa", "r": "edft", "s": "awedxz", "t": "rfgy", "u": "yhji", "v": "cfgb", "w": "qase"},
    **{"x": "zsdc", "y": "tghu", "z": "asx"},
}
LONG_ENOUGH = 4  # letters of a word that a typo leaves recognizable
_WORD = re.compile(r"[^\W\d_]+")

Perturbation = Callable[..., str]


def typos(text: str, *, seed: int = 0, rate: float = 0.2) -> str:
    """One slip in each of a `rate` of the words of four letters or more; their first letter stays.

    Slips: two letters exchanged, one left out, one typed twice, or the key beside it. Shorter words, numbers and
    everything between words stay as they are.
    """
    _check_rate(rate)
    generator = _generator(text, seed)

    def slip(match: re.Match) -> str:
        word = match[0]
        if len(word) < LONG_ENOUGH or generator.random() >= rate:
            return word
        return _slip(word, generator)

    return _WORD.sub(slip, text)


def _slip(word: str, generator: np.random.Generator) -> str:
    """The word with one slip behind its first letter, and never the word itself."""
    kinds = ("exchange", "leave out", "twice", "beside")
    for kind in generator.permutation(kinds):
        at = int(generator.integers(1, len(word)))
        if kind == "exchange":
            at = min(at, len(word) - 2)
            slipped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        elif kind == "leave out":
            slipped = word[:at] + word[at + 1 :]
        elif kind == "twice":
            slipped = word[: at + 1] + word[at:]
        else:
            near = NEIGHBOURS.get(word[at].lower(), word[at])
            key = near[int(generator.integers(len(near)))]
            slipped = word[:at] + (key.upper() if word[at].isupper() else key) + word[at + 1 :]
        if slipped != word:
            return slipped
    raise AssertionError(f"no slip changes {word!r}; one typed twice always does")


def case(text: str, *, seed: int = 0, kind: str = "lower") -> str:
    """The text in "lower" or "upper" case, or with each word's case by "chance": lower, upper or first letter only."""
    if kind == "lower":
        return text.lower()
    if kind == "upper":
        return text.upper()
    if kind != "chance":
        kinds = ("lower", "upper", "chance")
        raise ValueError(f"unknown kind of case {kind!r}{meant(kind, kinds)}; have {list(kinds)}")
    generator = _generator(text, seed)
    ways = (str.lower, str.upper, str.capitalize)
    return _WORD.sub(lambda match: ways[int(generator.integers(3))](match[0]), text)


def spacing(text: str, *, seed: int = 0, most: int = 3) -> str:
    """1 to `most` blanks for every single blank between words; line ends and indentation stay."""
    if most < 1:
        raise ValueError(f"spacing puts 1 or more blanks between words, given most={most}")
    generator = _generator(text, seed)
    return re.sub(r"(?<=\S) (?=\S)", lambda _: " " * int(generator.integers(1, most + 1)), text)


PERTURBATIONS: dict[str, Perturbation] = {"typos": typos, "case": case, "spacing": spacing}


def perturbed(
    row: Mapping[str, Any], how: str | Perturbation, fields: Sequence[str], *, label: str | None = None, **options: Any
) -> dict[str, Any]:
    """A copy of an example with the texts in `fields` perturbed and all else untouched.

    how: a name of `PERTURBATIONS`, or any function from text to text. label: the field that must not change.

    Raises:
      ValueError: an unknown perturbation, the label among the fields, or a field that is absent or no text.
    """
    if isinstance(how, str):
        if how not in PERTURBATIONS:
            raise ValueError(f"unknown perturbation {how!r}{meant(how, PERTURBATIONS)}; have {sorted(PERTURBATIONS)}")
        how = PERTURBATIONS[how]
    if label in fields:
        raise ValueError(f"the label {label!r} is among the fields {list(fields)} to perturb; it must stay as it is")
    wrong = [field for field in fields if not isinstance(row.get(field), str)]
    if wrong:
        raise ValueError(f"only texts can be perturbed; {wrong} is none in a row with {list(row)}")
    return dict(row) | {field: how(row[field], **options) for field in fields}


def _generator(text: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(text.encode())])


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is the share of words that get a typo, in 0..1; given {rate}")
