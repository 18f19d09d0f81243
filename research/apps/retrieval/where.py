"""Filters on chunks, checked and taken apart; each database writes them in its own words."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from .store import Where

COLUMNS = ("id", "source", "title", "heading", "start", "end")
BOUNDS = (">=", ">", "<=", "<")
_KEY = re.compile(r"[A-Za-z_][\w-]*")


class Condition(NamedTuple):
    """field op value; op is "=", "in" or one of `BOUNDS`."""

    field: str
    op: str
    value: Any


def conditions(where: Where | None) -> list[Condition]:
    """What has to hold, all of it.

    Raises:
      ValueError: a field that is no name, an unknown bound, or a value that is no text, number or truth value.
    """
    found = []
    for field, wanted in (where or {}).items():
        if not isinstance(field, str) or not _KEY.fullmatch(field):
            raise ValueError(f"filter: {field!r} is no name of a field")
        if isinstance(wanted, dict):
            if unknown := [op for op in wanted if op not in BOUNDS] or not wanted:
                raise ValueError(f"filter on {field!r}: unknown bounds {unknown}; have {list(BOUNDS)}")
            found += [Condition(field, op, _scalar(field, value)) for op, value in wanted.items()]
        elif isinstance(wanted, Sequence | set | frozenset) and not isinstance(wanted, str):
            values = [_scalar(field, value) for value in wanted]
            if len({isinstance(value, str) for value in values}) != 1:
                raise ValueError(f"filter on {field!r}: expected texts or numbers in the list, given {wanted!r:.80}")
            found.append(Condition(field, "in", values))
        else:
            found.append(Condition(field, "=", _scalar(field, wanted)))
    return found


def _scalar(field: str, value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError(f"filter on {field!r}: expected a text, a number or a truth value, given {value!r:.80}")
    return value
