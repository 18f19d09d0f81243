"""Products of 8-bit integers, summed in 32 bits, and how rows of activations become such integers.

On a CPU the plain product of two int8 arrays is slow: one row leaves the fast kernels altogether, and with more rows
the instruction that x86 has for such sums (VNNI) wants one side without a sign (LOG.md has the figures).

I input features · O output features · R rows
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.custom_batching import custom_vmap
from jax.extend.core import Primitive
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters import mlir

from research.core.types import Array

LARGEST = 127


def row_scales(x: Array) -> Array:
    """max |x| / 127 of every row, in float32: x [..., I] -> [..., 1]; a row of zeros has the scale 1."""
    peak = jnp.max(jnp.abs(x), axis=-1, keepdims=True).astype(jnp.float32)
    return jnp.where(peak > 0, peak / LARGEST, 1.0)


def to_int8(x: Array, scale: Array) -> Array:
    """x / scale, rounded to the nearest of -127..127: x [..., I], scale [..., 1] or []."""
    return jnp.clip(jnp.round(x.astype(jnp.float32) / scale), -LARGEST, LARGEST).astype(jnp.int8)


def int8_product(x: Array, w: Array) -> Array:
    """x wᵀ in int32, exact: x [..., I] int8, w [O, I] int8 -> [..., O]."""
    mesh = jax.sharding.get_abstract_mesh()
    alone = mesh.empty or mesh.size == 1
    if not alone or jax.default_backend() != "cpu":
        return _plain(x, w)
    rows = x.reshape(-1, x.shape[-1])
    y = _one_row(rows, w) if len(rows) == 1 else _many_rows(rows, w)
    return y.reshape(*x.shape[:-1], len(w))


def _plain(x: Array, w: Array) -> Array:
    return lax.dot_general(x, w, (((x.ndim - 1,), (1,)), ((), ())), preferred_element_type=jnp.int32)


def _one_row(x: Array, w: Array) -> Array:
    """w xᵀ with x [1, I] taken twice: the right operand is copied before the product, so it must be the small one."""
    return _plain(w, jnp.broadcast_to(x, (2, x.shape[1])))[:, 0]


def _many_rows(x: Array, w: Array) -> Array:
    """(x + 128) wᵀ - 128 wᵀ: the second product is one more row of the first."""
    shifted = lax.bitcast_convert_type(x ^ jnp.int8(-128), jnp.uint8)
    y = _unsigned(jnp.concatenate([shifted, jnp.full((1, x.shape[1]), 128, jnp.uint8)]), w)
    return y[:-1] - y[-1:]


# `lax.dot_general` widens operands of different types before the product; the compiler itself takes them as they are.
_mixed = Primitive("dot_uint8_int8")
_mixed.def_abstract_eval(lambda x, w: ShapedArray((x.shape[0], w.shape[0]), jnp.int32))


def _lowered(context: Any, x: Any, w: Any) -> list[Any]:
    (out,) = context.avals_out
    sums = ir.RankedTensorType.get(out.shape, ir.IntegerType.get_signless(32))
    last = stablehlo.DotDimensionNumbers.get(
        lhs_batching_dimensions=[],
        rhs_batching_dimensions=[],
        lhs_contracting_dimensions=[1],
        rhs_contracting_dimensions=[1],
    )
    return [stablehlo.dot_general(sums, x, w, last)]


mlir.register_lowering(_mixed, _lowered, platform="cpu")


@custom_vmap
@jax.jit
def _unsigned(x: Array, w: Array) -> Array:
    """x wᵀ in int32: x [R, I] uint8, w [O, I] int8 -> [R, O]."""
    return _mixed.bind(x, w)


@_unsigned.def_vmap
def _(size: int, batched: list[bool], x: Array, w: Array) -> tuple[Array, bool]:
    del size
    axes = [0 if own else None for own in batched]
    wide = lambda x, w: _plain(x.astype(jnp.int32), w.astype(jnp.int32))  # noqa: E731
    return jax.vmap(wide, axes)(x, w), True
