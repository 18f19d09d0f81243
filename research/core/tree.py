"""Trees addressed by path: match, split and merge, stack and unstack, count.

A path is the "/"-joined names from the root. Layers are stored as ordered runs of stacked layers
(`layers/00/...`, named by the index of their first layer); patterns are matched against the generic path,
from which the run name is dropped, so a rule never depends on where runs were cut.
"""

import difflib
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LAYERS = "layers"
_RUN = re.compile(rf"(^|/){LAYERS}/\d+(?=/)")


def _name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"unknown tree key {key!r}")


def path_of(keys: Sequence[Any]) -> str:
    """The "/"-joined path of a key tuple from `jax.tree_util`."""
    return "/".join(_name(key) for key in keys)


def generic(path: str) -> str:
    """The path without its run name: `layers/00/mlp/up` -> `layers/mlp/up`."""
    return _RUN.sub(rf"\1{LAYERS}", path)


def paths(tree: Any) -> dict[str, Any]:
    """Every leaf by its full path, in tree order."""
    return {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_with_path(fn: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` whose function receives the full path first."""
    return jax.tree_util.tree_map_with_path(lambda keys, *leaves: fn(path_of(keys), *leaves), tree, *rest)


def _refuse_unmatched(pattern: str, candidates: Iterable[str]) -> None:
    known = sorted(set(candidates))
    near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.3)
    hint = f" (nearest: {', '.join(near)})" if near else ""
    raise ValueError(f"pattern {pattern!r} matches no weight{hint}; have {known}")


def require_match(pattern: str, names: Iterable[str]) -> None:
    """Raises a ValueError that names the nearest candidates where a pattern fully matches none of the names."""
    known = list(names)
    if not any(re.fullmatch(pattern, name) for name in known):
        _refuse_unmatched(pattern, known)


def select(tree: Any, patterns: str | Sequence[str]) -> Any:
    """A tree of booleans: true where any pattern fully matches the generic path.

    Raises:
      ValueError: a pattern matches nothing; the message lists what exists.
    """
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    names = [generic(path) for path in paths(tree)]
    for pattern in wanted:
        require_match(pattern, names)
    return map_with_path(lambda path, _: any(re.fullmatch(p, generic(path)) for p in wanted), tree)


_REQUIRED = object()


def assign(tree: Any, rules: Sequence[tuple[str, Any]], default: Any = _REQUIRED) -> Any:
    """A tree of values from ordered (pattern, value) rules; the first full match wins.

    Raises:
      ValueError: a rule matches nothing, or a weight is matched by no rule and there is no default.
    """
    names = [generic(path) for path in paths(tree)]
    for pattern, _ in rules:
        require_match(pattern, names)

    def value(path: str, _: Any) -> Any:
        for pattern, chosen in rules:
            if re.fullmatch(pattern, generic(path)):
                return chosen
        if default is _REQUIRED:
            raise ValueError(f"no rule covers {path!r}; rules: {[pattern for pattern, _ in rules]}")
        return default

    return map_with_path(value, tree)


def split(tree: Any, mask: Any) -> tuple[Any, Any]:
    """Two trees of the same structure: the masked leaves, and the others; `None` stands for what is absent."""
    chosen = jax.tree.map(lambda keep, leaf: leaf if keep else None, mask, tree)
    rest = jax.tree.map(lambda keep, leaf: None if keep else leaf, mask, tree)
    return chosen, rest


def merge(first: Any, second: Any) -> Any:
    """The inverse of `split`: every leaf from whichever tree has it."""
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=lambda x: x is None)


def _rewrite_layers(tree: Any, fn: Callable[[Any], Any]) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {name: fn(sub) if name == LAYERS else _rewrite_layers(sub, fn) for name, sub in tree.items()}


def run_length(run: Any) -> int:
    """How many layers a run holds: the length of its leaves' first axis."""
    return int(jax.tree.leaves(run)[0].shape[0])


def ordered(runs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The runs of one stack from the first layer to the last."""
    return sorted(runs.items(), key=lambda item: int(item[0]))


def unstack(params: Any) -> Any:
    """Each stack of layers as a tuple of per-layer trees, for unrolled programs such as decoding.

    Do it once, outside a loop: slicing a stack inside one copies the weights on every step.
    """

    def layers(runs: Any) -> Any:
        if not isinstance(runs, Mapping):
            return runs
        return tuple(
            jax.tree.map(lambda leaf, i=i: leaf[i], run) for _, run in ordered(runs) for i in range(run_length(run))
        )

    return _rewrite_layers(params, layers)


def stack(params: Any) -> Any:
    """The inverse of `unstack`: one run per maximal sequence of layers with equal structure, shapes and types."""

    def signature(layer: Any) -> Any:
        return jax.tree.structure(layer), tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(layer))

    def runs(layers: Any) -> Any:
        if isinstance(layers, Mapping):
            return layers
        starts = [i for i in range(len(layers)) if i == 0 or signature(layers[i]) != signature(layers[i - 1])]
        ends = [*starts[1:], len(layers)]
        return {
            f"{start:02d}": jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *layers[start:end])
            for start, end in zip(starts, ends, strict=True)
        }

    return _rewrite_layers(params, runs)


def cut(params: Any, at: Sequence[int]) -> Any:
    """Runs cut so that a run begins at each of the given layers; values are unchanged."""

    def runs(old: Mapping[str, Any]) -> Any:
        new = {}
        for name, run in ordered(old):
            first, length = int(name), run_length(run)
            bounds = [first, *sorted(i for i in set(at) if first < i < first + length), first + length]
            for start, end in zip(bounds, bounds[1:], strict=False):
                piece = slice(start - first, end - first)
                new[f"{start:02d}"] = jax.tree.map(lambda leaf, piece=piece: leaf[piece], run)
        return new

    return _rewrite_layers(params, runs)


def count(tree: Any) -> int:
    """How many numbers the tree holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def nbytes(tree: Any) -> int:
    """How many bytes the tree's arrays hold."""
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def fingerprint(tree: Any) -> str:
    """Tells weights apart: a hash of all paths and shapes, "-", and one of the first 64 values of every leaf.

    The same for stacked and unstacked layers, and in float32 and bfloat16 (the values are rounded to the latter);
    weights that were trained further differ.
    """
    shapes, values = hashlib.sha256(), hashlib.sha256()
    for path, leaf in sorted(paths(unstack(tree)).items()):
        shapes.update(f"{path} {leaf.shape} ".encode())
        values.update(np.asarray(jnp.ravel(leaf)[:64].astype(jnp.bfloat16), np.float32).tobytes())
    return f"{shapes.hexdigest()[:12]}-{values.hexdigest()[:12]}"


def table(tree: Any) -> list[tuple[str, tuple[int, ...], str, int]]:
    """(path, shape, dtype, count) of every leaf."""
    return [(path, tuple(leaf.shape), str(leaf.dtype), math.prod(leaf.shape)) for path, leaf in paths(tree).items()]


def check_same(expected: Any, given: Any, what: str = "checkpoint") -> None:
    """Raises one ValueError that lists every missing, unexpected and misshaped path of `given`."""
    want, have = paths(expected), paths(given)
    missing = sorted(set(want) - set(have))
    unexpected = sorted(set(have) - set(want))
    shapes = [
        f"{path}: expected {tuple(want[path].shape)}, given {tuple(have[path].shape)}"
        for path in sorted(set(want) & set(have))
        if tuple(want[path].shape) != tuple(have[path].shape)
    ]
    if missing or unexpected or shapes:
        raise ValueError(f"{what} does not fit: missing {missing}; unexpected {unexpected}; misshaped {shapes}")
