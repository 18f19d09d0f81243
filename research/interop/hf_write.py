"""Parameters to a folder of safetensors in a family's names."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.core import tree
from research.core.types import Params
from research.interop.family import Family
from research.interop.folder import write_folder
from research.interop.hf_config import family_of
from research.interop.table import Slot, slots
from research.models import ModelConfig, build

# The size of a tensor in bytes, and how to make it when its shard is written.
_Writer = tuple[int, Callable[[], np.ndarray]]


def _plain_arrays(params: Params) -> None:
    leaves = jax.tree.leaves(params, is_leaf=lambda x: not isinstance(x, Mapping | tuple | list))
    if strange := sorted({type(leaf).__name__ for leaf in leaves if not hasattr(leaf, "__array__")}):
        raise TypeError(
            f"weights of type {strange} have no form in a checkpoint; fold them into arrays first (ops.fold)"
        )


def _stacked(params: Params) -> Params:
    """The same tree with layers in runs, whichever of the two forms was given."""
    stacks = [side for side in params.values() if isinstance(side, Mapping) and tree.LAYERS in side]
    return tree.stack(params) if any(not isinstance(side[tree.LAYERS], Mapping) for side in stacks) else params


def _check(config: ModelConfig, params: Params) -> None:
    def shapes(given: Params) -> dict[str, tuple[int, ...]]:
        # Runs may be cut anywhere, so a layered weight is compared by the shape of one layer.
        return {
            tree.generic(path): tuple(leaf.shape[1:] if path != tree.generic(path) else leaf.shape)
            for path, leaf in tree.paths(given).items()
        }

    want, have = shapes(build(config).abstract()), shapes(params)
    missing, unexpected = sorted(set(want) - set(have)), sorted(set(have) - set(want))
    wrong = [f"{p}: given {have[p]}, expected {want[p]}" for p in want if p in have and have[p] != want[p]]
    if missing or unexpected or wrong:
        raise ValueError(
            f"these parameters are not those of the config: missing {missing}; unexpected {unexpected}; "
            f"misshaped {wrong}"
        )


def _tensor(slot: Slot, leaves: Mapping[str, Any]) -> np.ndarray:
    parts = (leaves[path] if slot.index is None else leaves[path][slot.index] for path in slot.paths)
    return slot.how.save([np.asarray(part) for part in parts])


def _writers(family: Family, config: ModelConfig, params: Params) -> dict[str, _Writer]:
    leaves = tree.paths(params)
    result: dict[str, _Writer] = {}
    for slot in slots(family.rows(config), params):
        size = int(np.prod(slot.shape)) * leaves[slot.paths[0]].dtype.itemsize
        result[slot.name] = (size, partial(_tensor, slot, leaves))
    for name, value in family.constants(config).items():
        result[name] = (value.nbytes, partial(np.asarray, value))
    copies = family.copies(config)
    for name in family.repeats(config):
        result[name] = result[copies[name]]
    bare = family.prefix if config.head == "none" else ""
    return {name.removeprefix(bare): writer for name, writer in result.items()}


def write_params(folder: Path, config: ModelConfig, params: Params, max_shard_bytes: int) -> str:
    """Writes the weights in the family's names and returns the name of their type.

    Raises:
      ValueError: the parameters are not those of `config`. TypeError: a weight is no plain array.
    """
    _plain_arrays(params)
    params = _stacked(params)
    _check(config, params)
    writers = _writers(family_of(config.family), config, params)
    sizes = [(name, size) for name, (size, _) in writers.items()]
    write_folder(folder, sizes, lambda name: writers[name][1](), max_shard_bytes)
    return str(params["embed"]["tokens"]["embedding"].dtype)
