"""What a word is for search by words."""

import re

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The runs of letters and digits of the text in lower case; the parts of snake_case are words."""
    return _WORD.findall(text.lower())
