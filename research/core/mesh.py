"""Meshes: (path pattern -> layout) rules, one table for weights and whatever follows them (optimizer moments).

Axes of a mesh, all optional: `data` (batch), `fsdp` (batch, and weights cut over it), `tensor` (heads, feed-forward
and vocabulary cut over it), `sequence` (positions). A layout is written for the trailing axes of a weight, so the
layer axis in front of a stack needs no entry. Types are `AxisType.Auto`: XLA inserts the communication.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from research.core import tree

AXES = ("data", "fsdp", "tensor", "sequence")
BATCH_AXES = ("data", "fsdp")

Spec: TypeAlias = tuple[str | tuple[str, ...] | None, ...]
Rules: TypeAlias = Sequence[tuple[str, Spec]]
Heads: TypeAlias = Sequence[tuple[str, int]]

RULES: Rules = (
    (r"(.*/)?(embed/tokens|head/table)/embedding", ("tensor", "fsdp")),
    (r"(.*/)?head/bias", ("tensor",)),
    (r".*(positions|types)/embedding", (None, "fsdp")),
    (r".*relative/embedding", (None, "tensor")),
    (r".*(attention|cross)/(q|k|v)/kernel", ("fsdp", "tensor")),
    (r".*(attention|cross)/(q|k|v)/bias", ("tensor",)),
    (r".*(attention|cross)/o/kernel", ("tensor", "fsdp")),
    (r".*mlp/(up|gate)/kernel", ("fsdp", "tensor")),
    (r".*mlp/(up|gate)/bias", ("tensor",)),
    (r".*mlp/down/kernel", ("tensor", "fsdp")),
    (r".*kernel", ("fsdp", None)),
    (r".*(scale|bias)", (None,)),
    (r".*/prefix/(k|v)", (None, "tensor", None)),
)
"""Layouts of the parameter tree of `research.models`; prepend rules for anything else."""


def make_mesh(axes: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of the given sizes over the first devices; one size may be -1 (all that are left).

    Raises:
      ValueError: an unknown axis, a bad size, sizes that do not fit the devices, or a host without a device in it.
    """
    pool = list(jax.devices() if devices is None else devices)
    if unknown := sorted(set(axes) - set(AXES)):
        raise ValueError(f"unknown mesh axes {unknown}; have {list(AXES)}")
    sizes = {name: int(axes.get(name, 1)) for name in AXES}
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise ValueError(f"mesh sizes must be positive, at most one of them -1; given {dict(axes)}")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if free:
        if len(pool) % fixed:
            raise ValueError(f"mesh {dict(axes)} does not divide {len(pool)} devices: {fixed} is no divisor")
        sizes[free[0]] = len(pool) // fixed
    total = math.prod(sizes.values())
    if total > len(pool):
        raise ValueError(f"mesh {dict(axes)} needs {total} devices, there are {len(pool)} ({pool[0].platform})")
    if len({d.process_index for d in pool[:total]}) < len({d.process_index for d in pool}):
        raise ValueError(f"mesh {dict(axes)} takes {total} of the {len(pool)} devices of all hosts; try data = -1")
    kinds = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=kinds, devices=pool[:total])


def specs(params: Any, rules: Rules, mesh: Mesh, *, heads: Heads = ()) -> dict[str, PartitionSpec]:
    """path -> layout of every weight; the first matching rule wins. Mesh axes of size 1 are left out.

    heads: (pattern, count) pairs: the axis of such a weight that is cut over `tensor` is made of `count` heads,
    which are not cut themselves.

    Raises:
      ValueError: a weight that no rule covers or that an axis of the mesh does not divide; names path, shape, axis.
    """
    out: dict[str, PartitionSpec] = {}
    for keys, node in jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_wrapper):
        path = tree.path_of(keys)
        name, shape = tree.generic(path), tuple(node.shape)
        spec = next((spec for pattern, spec in rules if re.fullmatch(pattern, name)), None)
        if spec is None:
            raise ValueError(f"no sharding rule covers {path!r} of shape {shape}; rules: {[p for p, _ in rules]}")
        if len(spec) > len(shape):
            raise ValueError(f"sharding rule {spec} has more axes than {path!r} of shape {shape}")
        full = (None,) * (len(shape) - len(spec)) + tuple(_present(entry, mesh) for entry in spec)
        count = next((n for pattern, n in heads if re.fullmatch(pattern, name)), None)
        _check(path, shape, full, mesh, count)
        out |= _inside(path, node, full, mesh)
    return out


def _is_wrapper(node: Any) -> bool:
    return hasattr(node, "layouts")


def _inside(path: str, node: Any, spec: Spec, mesh: Mesh) -> dict[str, PartitionSpec]:
    """path -> layout of a weight, or of the arrays of one made of several, which says how they follow the whole."""
    if not _is_wrapper(node):
        return {path: PartitionSpec(*spec)}
    own = node.layouts(spec)
    wraps = hasattr(node, "base")
    out = _inside(f"{path}/base", node.base, spec, mesh) if wraps else {}
    for name, array in tree.paths(node.replace(base=None) if wraps else node).items():
        # A packed axis is shorter than the one it stands for: where the mesh does not divide it, it is kept whole.
        entries = zip(own.get(name, ()), array.shape, strict=False)
        out[f"{path}/{name}"] = PartitionSpec(*(e if size % _size(e, mesh) == 0 else None for e, size in entries))
    return out


def _names(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else (entry or ())


def _size(entry: str | tuple[str, ...] | None, mesh: Mesh) -> int:
    return math.prod(mesh.shape.get(name, 1) for name in _names(entry))


def _present(entry: str | tuple[str, ...] | None, mesh: Mesh) -> str | tuple[str, ...] | None:
    kept = tuple(name for name in _names(entry) if mesh.shape.get(name, 1) > 1)
    return kept[0] if len(kept) == 1 else (kept or None)


def _check(path: str, shape: tuple[int, ...], spec: Sequence[Any], mesh: Mesh, count: int | None) -> None:
    for axis, entry in enumerate(spec):
        if "tensor" in _names(entry) and count is not None and count % mesh.shape["tensor"]:
            raise ValueError(
                f"{path!r} of shape {shape} holds {count} heads, which mesh axis 'tensor' of size "
                f"{mesh.shape['tensor']} does not divide; change the mesh or put a rule in front that does not cut it"
            )
        if shape[axis] % _size(entry, mesh):
            raise ValueError(
                f"axis {axis} of {path!r} of shape {shape} is not divisible by mesh axis {entry!r} of size "
                f"{_size(entry, mesh)}; change the mesh or put a rule in front that does not cut it"
            )


def shardings(params: Any, rules: Rules, mesh: Mesh, *, heads: Heads = ()) -> Any:
    """`specs` as a tree of `NamedSharding` of the same structure as `params`."""
    table = specs(params, rules, mesh, heads=heads)
    return tree.map_with_path(lambda path, _: NamedSharding(mesh, table[path]), params)


def follow(other: Any, params: Any, table: Mapping[str, PartitionSpec], mesh: Mesh) -> Any:
    """Layouts for a tree that holds weights or things shaped like them: each leaf follows the weight whose path
    its own path contains; factored moments lose the axis they lack; everything else is replicated."""
    shapes = {path: tuple(leaf.shape) for path, leaf in tree.paths(params).items()}

    def layout(path: str, leaf: Any) -> NamedSharding:
        owner = _owner(path, table)
        spec = _reduced(tuple(leaf.shape), shapes[owner], tuple(table[owner])) if owner else ()
        return NamedSharding(mesh, PartitionSpec(*spec))

    return tree.map_with_path(layout, other)


def _owner(path: str, table: Mapping[str, Any]) -> str | None:
    parts = path.split("/")
    spans = ((i, j) for i in range(len(parts)) for j in range(len(parts), i, -1))
    return next((name for i, j in spans if (name := "/".join(parts[i:j])) in table), None)


def _reduced(shape: tuple[int, ...], full: tuple[int, ...], spec: Spec) -> Spec:
    if shape == full:
        return spec
    for axis in range(len(full)):
        if shape == full[:axis] + full[axis + 1 :]:
            return spec[:axis] + spec[axis + 1 :]
    return ()


def batch_shardings(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, NamedSharding]:
    """Rows over `data` and `fsdp`, positions (axis 1) over `sequence`.

    Raises:
      ValueError: rows or positions that the mesh does not divide; names the array, its shape and the axis.
    """
    out = {}
    for name, array in batch.items():
        shape = tuple(array.shape)
        spec: Spec = tuple(_present(entry, mesh) for entry in (BATCH_AXES, "sequence")[: len(shape)])
        for axis, (entry, wanted) in enumerate(zip(spec, ("data x fsdp", "sequence"), strict=False)):
            if shape[axis] % _size(entry, mesh):
                raise ValueError(
                    f"axis {axis} of batch[{name!r}] of shape {shape} is not divisible by {wanted} = "
                    f"{_size(entry, mesh)} of the mesh"
                )
        out[name] = NamedSharding(mesh, PartitionSpec(*spec))
    return out


def cut_over(axis: str) -> int:
    """Over how many devices the mesh in use cuts an axis of it that is left to XLA; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return int(mesh.shape[axis]) if kinds.get(axis) == AxisType.Auto else 1


def keep_rows(x: jax.Array) -> jax.Array:
    """`x` [B, T, D] out of a table, with its rows cut over the batch axes of the mesh in use; as it is without a mesh.

    A table that is cut over `fsdp` along D gives rows that are cut along D too. Left to itself XLA keeps it so, and
    every layer after it holds activations of the whole batch; told only the end, it goes there over a copy of the
    whole array. In two steps it is one all-to-all among the devices of `fsdp`, and the same back for the gradient.
    """
    axes = tuple(name for name in BATCH_AXES if cut_over(name) > 1)
    if "fsdp" not in axes or x.shape[0] % math.prod(cut_over(name) for name in axes):
        return x
    position = "sequence" if cut_over("sequence") > 1 and x.shape[1] % cut_over("sequence") == 0 else None
    if x.shape[-1] % cut_over("fsdp") == 0:
        before = PartitionSpec("data" if "data" in axes else None, position, "fsdp")
        x = jax.lax.with_sharding_constraint(x, before)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, position, None))


def rows_beside(params: Any, arrays: Any, rows: int) -> Any:
    """A tree of arrays with those of `rows` rows cut over the batch axes of the mesh that the weights lie on.

    As they are where the weights lie on one device, or where the mesh does not divide the rows.
    """
    layouts = [leaf.sharding for leaf in jax.tree.leaves(params) if isinstance(leaf, jax.Array) and leaf.committed]
    mesh = next((s.mesh for s in layouts if isinstance(s, NamedSharding) and s.mesh.size > 1), None)
    if not isinstance(mesh, Mesh) or jax.process_count() > 1:
        return arrays
    axes = tuple(name for name in BATCH_AXES if mesh.shape.get(name, 1) > 1)
    if not axes or rows % math.prod(mesh.shape[name] for name in axes):
        return arrays
    cut = NamedSharding(mesh, PartitionSpec(axes))
    return jax.tree.map(lambda x: jax.device_put(x, cut) if x.ndim and x.shape[0] == rows else x, arrays)


def host_rows(mesh: Mesh | None) -> tuple[int, int]:
    """(i, n): of each batch, cut into n equal blocks of rows, this process gives block i; (0, 1) of a single process.

    Hosts that the mesh joins by `tensor` or `sequence` hold the same rows and give the same block. Where the devices
    of a host do not hold one block, every host gives the whole batch.
    """
    if mesh is None or jax.process_count() == 1:
        return 0, 1
    axes = [mesh.axis_names.index(name) for name in BATCH_AXES if name in mesh.axis_names]
    parts = math.prod(mesh.devices.shape[axis] for axis in axes)
    held: dict[int, set[int]] = {}
    for row, devices in enumerate(np.moveaxis(mesh.devices, axes, range(len(axes))).reshape(parts, -1)):
        for device in devices:
            held.setdefault(device.process_index, set()).add(row)
    count = len({frozenset(rows) for rows in held.values()})
    blocks = [set(block.tolist()) for block in np.array_split(np.arange(parts), count)]
    if parts % count or any(rows not in blocks for rows in held.values()):
        return 0, 1
    return blocks.index(held[jax.process_index()]), count


def place(batch: Mapping[str, Any], mesh: Mesh | None) -> dict[str, jax.Array]:
    """A host batch on the devices; with several hosts, each gives its block of rows (`host_rows`)."""
    if mesh is None:
        return {name: jax.device_put(array) for name, array in batch.items()}
    count = host_rows(mesh)[1]
    whole = {
        name: jax.ShapeDtypeStruct((array.shape[0] * count, *array.shape[1:]), array.dtype)
        for name, array in batch.items()
    }
    layout = batch_shardings(whole, mesh)
    if jax.process_count() == 1:
        return {name: jax.device_put(array, layout[name]) for name, array in batch.items()}
    return {
        name: jax.make_array_from_process_local_data(layout[name], np.asarray(array), whole[name].shape)
        for name, array in batch.items()
    }
