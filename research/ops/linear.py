"""What a weight does, dispatched on the type of the weight.

A weight is an array, or a node (a `flax.struct` dataclass) that one file under `research/weights` defines and
registers here. Dispatch happens while tracing, so it costs nothing in the compiled program, and models never ask
what a weight is. A new method is a new file: it registers `linear`, and `embed`, `unembed`, `dense`, `fold` where
the default (through `dense`) is not what it wants.

I input features · O output features · V vocabulary · D model width
"""

from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from research.core.types import Array
from research.ops.dot import add_bias, dot, dot_transposed


def _is_array(w: Any) -> bool:
    # `jax.Array` covers tracers through isinstance but not through singledispatch, hence a default with a check.
    return isinstance(w, (jax.Array, np.ndarray))


def _refuse(function: Any, w: Any) -> TypeError:
    known = sorted(kind.__name__ for kind in function.registry if kind is not object)
    return TypeError(f"{function.__name__}: no rule for a weight of type {type(w).__name__}; have Array and {known}")


@singledispatch
def linear(
    w: Any, x: Float[Array, "... I"], bias: Float[Array, " O"] | None = None, rng: Array | None = None
) -> Float[Array, "... O"]:
    """y = x w + b: x [..., I], w [I, O], bias [O] -> [..., O], in the type of x.

    Args:
      rng: key for leaves that are random in training (LoRA dropout); arrays ignore it.

    Raises:
      TypeError: `w` is of a type that no file has registered; the message lists the registered types.
    """
    del rng
    if not _is_array(w):
        raise _refuse(linear, w)
    y = dot(x, w)
    return y if bias is None else add_bias(y, bias)


@singledispatch
def dense(w: Any) -> Array:
    """The weight as one array, whatever it is made of."""
    if not _is_array(w):
        raise _refuse(dense, w)
    return w


@singledispatch
def embed(w: Any, ids: Int[Array, "*ids"]) -> Float[Array, "*ids D"]:
    """Rows of a table: w [V, D], ids [...] -> [..., D]."""
    return jnp.take(dense(w), ids, axis=0, mode="clip")


@singledispatch
def unembed(w: Any, h: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
    """Float32 logits h wᵀ: h [..., D], w [V, D] -> [..., V]."""
    return dot_transposed(h, dense(w))


@singledispatch
def fold(w: Any) -> Any:
    """The weight merged into the simplest weight that computes the same; an array is already that."""
    return dense(w)
