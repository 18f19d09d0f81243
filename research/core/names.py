"""Names of settings: what somebody meant by one that does not exist, and dotted names of nested ones."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def meant(name: object, known: Iterable[str]) -> str:
    """`, did you mean 'lora'?` with the nearest of the known names, or nothing if none is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def flat(value: Any, at: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, {"optimizer": {"rate": 1}} -> {"optimizer.rate": 1}; {} is a value."""
    if not isinstance(value, Mapping) or not value:
        return {at: value} if at else {}
    return {k: v for key, inner in value.items() for k, v in flat(inner, f"{at}.{key}" if at else str(key)).items()}
