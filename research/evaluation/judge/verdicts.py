"""What a judge decided, read from what it wrote; None where that cannot be known."""

import re

WINNERS = {"A": "A", "B": "B", "C": "tie", "TIE": "tie"}
_VERDICT = re.compile(r"\[\[\s*(A|B|C|tie)\s*\]\]", re.IGNORECASE)
_RATING = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]")


def read_verdict(text: str) -> str | None:
    """ "A", "B" or "tie" from the last [[A]], [[B]] or [[C]]: the verdict is asked for at the end."""
    found = _VERDICT.findall(text)
    return WINNERS[found[-1].upper()] if found else None


def read_rating(text: str, low: float = 1, high: float = 10) -> float | None:
    """The last number in double brackets; None when there is none or it is not on the scale."""
    found = _RATING.findall(text)
    return float(found[-1]) if found and low <= float(found[-1]) <= high else None
