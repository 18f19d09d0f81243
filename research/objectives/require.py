"""Hyper-parameters are refused while they are still plain numbers; what is traced cannot be looked at."""

from typing import Any

import jax
import numpy as np


def _known(value: Any) -> bool:
    return not isinstance(value, jax.core.Tracer) and np.ndim(value) == 0


def positive(name: str, value: Any) -> None:
    """Raises a ValueError for a number that is not above 0."""
    if _known(value) and not value > 0:
        raise ValueError(f"{name} must be above 0, given {value}")


def not_negative(name: str, value: Any) -> None:
    """Raises a ValueError for a number that is not 0 or above."""
    if _known(value) and not value >= 0:
        raise ValueError(f"{name} must be 0 or above, given {value}")


def share(name: str, value: Any, *, below: float | None = None) -> None:
    """Raises a ValueError for a number outside 0 .. 1, or outside 0 .. `below` with that end left out."""
    if _known(value) and not (0 <= value <= 1 if below is None else 0 <= value < below):
        end = "1" if below is None else f"{below}, which is not in it"
        raise ValueError(f"{name} must be in 0 .. {end}; given {value}")


def same_shape(**arrays: Any) -> None:
    """Raises a ValueError that lists the shapes where they are not all the same; None is left out."""
    shapes = {name: np.shape(array) for name, array in arrays.items() if array is not None}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"shapes must be the same, given {shapes}")


def pairs(name: str, array: Any, mask: Any) -> None:
    """Raises a ValueError for an array that is not [P, 2], or a mask that is not [P]."""
    shape = np.shape(array)
    if len(shape) != 2 or shape[1] != 2:
        raise ValueError(f"{name} must hold the chosen and the rejected answer of each pair, [P, 2]; given {shape}")
    if mask is not None and np.shape(mask) != shape[:1]:
        raise ValueError(f"the mask of {shape[0]} pairs must have the shape {shape[:1]}, given {np.shape(mask)}")


def within(name: str, value: Any) -> None:
    """Raises a ValueError for a number that is not between 0 and 1."""
    if _known(value) and not 0 < value < 1:
        raise ValueError(f"{name} must be above 0 and below 1, given {value}")
