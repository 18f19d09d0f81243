"""Methods that change weights, one file each: what is attached, what learns, and how it is merged again."""

from .calibrate import calibrate
from .many import mix, pool, route
from .quantize import bits_per_weight, dequantize, drift, merge_back, quantize
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
    "bits_per_weight",
    "calibrate",
    "dequantize",
    "describe",
    "drift",
    "is_wrapper",
    "labels",
    "merge",
    "merge_back",
    "mix",
    "names",
    "parse",
    "pool",
    "quantize",
    "rate_groups",
    "restored",
    "route",
    "strip",
    "structure",
    "trainable",
]
