"""Methods that change weights, one file each: what is attached, what learns, and how it is merged again."""

from .many import mix, pool, route
from .recipe import (
    METHODS,
    Recipe,
    attach,
    describe,
    labels,
    merge,
    parse,
    rate_groups,
    restored,
    strip,
    structure,
    trainable,
)
from .wrapper import is_wrapper, names

__all__ = [
    "METHODS",
    "Recipe",
    "attach",
    "describe",
    "is_wrapper",
    "labels",
    "merge",
    "mix",
    "names",
    "parse",
    "pool",
    "rate_groups",
    "restored",
    "route",
    "strip",
    "structure",
    "trainable",
]
