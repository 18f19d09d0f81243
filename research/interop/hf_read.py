"""A folder's tensors to parameters: every tensor accounted for, one in memory at a time."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core import tree
from research.core.types import Params
from research.interop.family import Family
from research.interop.folder import Tensors
from research.interop.hf_config import family_of
from research.interop.table import Slot, slots
from research.models import ModelConfig, build


@dataclass
class _Account:
    """Which tensor of the file fills which slot, and what is left over."""

    sources: dict[str, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)


def _their_name(name: str, family: Family, known: Mapping[str, Any]) -> str:
    """The name under which the table knows a tensor: older spellings and the bare model's names resolved."""
    for pattern, replacement in family.renames:
        name = re.sub(f"^(?:{pattern})$", replacement, name)
    return family.prefix + name if name not in known and family.prefix + name in known else name


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _same(tensors: Tensors, one: str, other: str | None) -> bool:
    return other is not None and np.array_equal(tensors.read(one), tensors.read(other))


def _account(family: Family, config: ModelConfig, wanted: Mapping[str, Slot], tensors: Tensors) -> _Account:
    copies, constants = family.copies(config), family.constants(config)
    known: dict[str, Any] = {**wanted, **copies, **constants}
    names = {_their_name(name, family, known): name for name in tensors.names}
    result = _Account()
    for theirs, name in names.items():
        if theirs in wanted:
            result.sources[theirs] = name
        elif theirs in copies and _same(tensors, name, names.get(copies[theirs])):
            continue
        elif theirs in constants:
            if np.any(tensors.read(name) != constants[theirs]):
                result.unequal.append(f"{name} is not the constant that it must be")
        elif _matches(theirs, family.harmless):
            continue
        elif theirs in copies and copies[theirs] not in names:
            continue  # stands in for its original below
        elif theirs in copies and config.head in ("lm", "mlm"):
            result.unequal.append(f"{name} differs from {copies[theirs]}, which it repeats in this model")
        elif _matches(theirs, family.surplus(config)):
            result.unread.append(name)
        else:
            result.unexpected.append(name)
    _adopt_copies(copies, wanted, names, result)
    return result


def _adopt_copies(
    copies: Mapping[str, str], wanted: Mapping[str, Slot], names: Mapping[str, str], result: _Account
) -> None:
    """Fills a missing tensor from one that repeats it, as files saved without their first copy need."""
    for copy, original in copies.items():
        if original in wanted and original not in result.sources and copy in names and copy not in wanted:
            result.sources[original] = names[copy]


def _refuse(folder: Path, account: _Account, missing: Sequence[str], shapes: Sequence[str]) -> None:
    parts = {
        "missing": missing,
        "unexpected": sorted(account.unexpected),
        "misshaped": shapes,
        "unequal": account.unequal,
    }
    if any(parts.values()):
        said = "; ".join(f"{name} {list(items)}" for name, items in parts.items() if items)
        raise ValueError(f"{folder} does not hold the model that its config.json describes: {said}")


def _misshaped(wanted: Mapping[str, Slot], sources: Mapping[str, str], tensors: Tensors) -> list[str]:
    pairs = ((name, tensors.shape(source), wanted[name].shape) for name, source in sources.items())
    return [f"{name}: given {given}, expected {expected}" for name, given, expected in pairs if given != expected]


def _fill(
    wanted: Mapping[str, Slot], sources: Mapping[str, str], tensors: Tensors, shapes: Mapping[str, Any], dtype: Any
) -> dict[str, jax.Array]:
    """Our weights by path; each is finished and handed to the device before the next is begun."""
    types: dict[str, np.dtype] = {}
    for name, source in sources.items():
        for path in wanted[name].paths:
            given = tensors.dtype(source)
            types[path] = np.dtype(dtype or jnp.promote_types(types.get(path, given), given))
    open_slots = {path: sum(path in wanted[name].paths for name in sources) for path in types}
    hosts: dict[str, np.ndarray] = {}
    done: dict[str, jax.Array] = {}
    for name, source in sources.items():
        slot = wanted[name]
        for path, part in zip(slot.paths, slot.how.load(tensors.read(source)), strict=True):
            host = hosts.setdefault(path, np.empty(shapes[path].shape, types[path]))
            host[... if slot.index is None else slot.index] = part.astype(types[path])
            open_slots[path] -= 1
            if not open_slots[path]:
                done[path] = jnp.asarray(hosts.pop(path))
    return done


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path, value in values.items():
        *parents, leaf = path.split("/")
        node = root
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = value
    return root


def read_params(
    config: ModelConfig,
    tensors: Tensors,
    *,
    dtype: Any = None,
    key: jax.Array | None = None,
    new_head: bool = False,
) -> tuple[Params, tuple[str, ...], tuple[str, ...]]:
    """The parameters that a folder's tensors hold, the tensors left unread, and the paths freshly initialised.

    Args:
      dtype: the type of every weight; None keeps each as it is stored.
      key: for the weights of a new head; new_head: whether the head's weights may be absent.

    Raises:
      ValueError: one message with every missing, unexpected, misshaped and contradicting tensor.
    """
    family = family_of(config.family)
    model = build(config)
    shapes = tree.paths(model.abstract())
    wanted = {slot.name: slot for slot in slots(family.rows(config), model.abstract())}
    account = _account(family, config, wanted, tensors)
    missing = [name for name in wanted if name not in account.sources]
    if new_head:
        account.fresh = [path for name in missing for path in wanted[name].paths if path.startswith("head/")]
        missing = [name for name in missing if not set(wanted[name].paths) <= set(account.fresh)]
    _refuse(tensors.folder, account, missing, _misshaped(wanted, account.sources, tensors))
    values = _fill(wanted, account.sources, tensors, shapes, dtype)
    if account.fresh:
        # Under jit, what is not returned is not computed: only the head is drawn.
        head = jax.jit(lambda k: model.init(k)["head"])(jax.random.key(0) if key is None else key)
        drawn = tree.paths({"head": head})
        kind = dtype or values["embed/tokens/embedding"].dtype
        values |= {path: drawn[path].astype(kind) for path in account.fresh}
    ordered = {path: values[path] for path in shapes}
    return _nested(ordered), tuple(sorted(account.unread)), tuple(account.fresh)
