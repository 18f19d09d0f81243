"""What somebody meant by a name that does not exist."""

import difflib
from collections.abc import Iterable


def meant(name: object, known: Iterable[str]) -> str:
    """`, did you mean 'lora'?` with the nearest of the known names, or nothing if none is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""
