"""What all leaves that wrap another weight share: a name, a base, and the shape that the model asks for."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, ClassVar

import jax

from research.core.types import Array
from research.ops.linear import dense, embed, linear, unembed


class Wrapper:
    """A weight around another one, `base`; a subclass is a `flax.struct` dataclass with that field and a static `name`.

    Attributes:
      TRAINS: names of the fields that learn. The other arrays (the base, a scale) never do.
    """

    TRAINS: ClassVar[tuple[str, ...]] = ()
    base: Any
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight this stands for, with the layer axis where there is one."""
        return tuple(self.base.shape)

    @property
    def dtype(self) -> Any:
        """The type of the innermost weight."""
        return self.base.dtype

    def bias(self, bias: Any) -> Any:
        """What becomes of the bias beside this weight when the weight is folded."""
        return bias

    def layouts(self, spec: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
        """Mesh axes of the own arrays, for those of the base; what is not named is kept whole on every device."""
        del spec
        return {}


class Dense(Wrapper):
    """A wrapper that is used as the one array that `dense` makes of it; a subclass registers that alone."""


@linear.register
def _(w: Dense, x: Array, bias: Array | None = None, rng: Array | None = None) -> Array:
    return linear(dense(w), x, bias, rng)


@embed.register
def _(w: Dense, ids: Array) -> Array:
    return embed(dense(w), ids)


@unembed.register
def _(w: Dense, h: Array) -> Array:
    return unembed(dense(w), h)


def is_wrapper(node: Any) -> bool:
    """Whether a node of a tree is a wrapped weight."""
    return isinstance(node, Wrapper)


def own_fields(node: Wrapper) -> dict[str, Any]:
    """The arrays (or nested weights) that the wrapper adds to its base."""
    named = ((f.name, f.metadata.get("pytree_node", True)) for f in fields(node))  # type: ignore[arg-type]
    return {name: getattr(node, name) for name, array in named if array and name != "base"}


def rebuild(node: Wrapper, base: Any, own: Callable[[str, Any], Any]) -> Any:
    """The wrapper with another base and `own(field, value)` in place of each of its own fields."""
    return replace(node, base=base, **{k: own(k, v) for k, v in own_fields(node).items()})  # type: ignore[type-var]


def folded_bias(weight: Any, bias: Any) -> Any:
    """The bias beside a wrapped weight after folding, inner wrappers first."""
    return weight.bias(folded_bias(weight.base, bias)) if is_wrapper(weight) else bias


def names(params: Any) -> tuple[str, ...]:
    """The names of all wrappers in a tree, innermost first where they are nested."""
    found: dict[str, None] = {}

    def visit(node: Any) -> None:
        if is_wrapper(node):
            visit(node.base)
            found.setdefault(node.name)

    for node in jax.tree.leaves(params, is_leaf=is_wrapper):
        visit(node)
    return tuple(found)


def over_wrappers(fn: Callable[[Any], Any], params: Any) -> Any:
    """The tree with `fn(wrapper)` in place of each outermost wrapper; everything else as it is."""
    return jax.tree.map(lambda node: fn(node) if is_wrapper(node) else node, params, is_leaf=is_wrapper)
