"""The one matrix product: low-precision operands, float32 accumulation, in the forward and the backward pass.

A product of bf16 operands that asks for a bf16 result leaves the fast path of XLA's CPU backend, and JAX's own
transpose rule mixes float32 and bf16 operands in the backward; so every product asks for float32, rounds once
afterwards, and has its own backward (LOG.md has the figures).

I input features · O output features
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from research.core.types import Array


def product(a: Array, b: Array, dimensions: tuple) -> Array:
    """`dot_general` accumulated and returned in float32."""
    product = lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)
    if a.dtype == jnp.float32:
        return product
    # Without the barrier XLA's CPU backend may fuse a transpose of the result into the product and fail at run time.
    return lax.optimization_barrier(product)


def _contiguous_transposes(x: Array) -> bool:
    """Whether a product with a transposed left operand is faster after that operand has been copied.

    True on one CPU device in low precision: read through its strides such a product leaves the fast kernels (4x).
    Under a mesh the constraint on the layout would gather the operand.
    """
    mesh = jax.sharding.get_abstract_mesh()
    alone = mesh.empty or mesh.size == 1
    return alone and jax.default_backend() == "cpu" and x.dtype in (jnp.bfloat16, jnp.float16)


@jax.jit
def _contiguous(x: Array) -> Array:
    # Only inside jit: eager arrays have their layout already.
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))


def swap_last(x: Array) -> Array:
    """xᵀ over the last two axes, laid out the way the product that follows reads it fastest."""
    swapped = jnp.swapaxes(x, -1, -2)
    return _contiguous(swapped) if _contiguous_transposes(x) else swapped


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _outer(a: Array, b: Array) -> Array:
    """Σ over all leading axes of aᵀ b in float32: a [..., I], b [..., O] -> [I, O]."""
    if not _contiguous_transposes(a):
        rows = tuple(range(a.ndim - 1))
        return product(a, b, ((rows, rows), ((), ())))
    return product(swap_last(_rows(a)), _rows(b), (((1,), (0,)), ((), ())))


def _on_rows(x: Array, w: Array, contracted: int) -> Array:
    """x [..., I] times w, contracted over that axis of w, in float32.

    A single row in low precision leaves the fast kernels of a CPU, two rows do not: it is computed twice.
    """
    w = w.astype(x.dtype)
    lonely = x.size == x.shape[-1] and x.dtype != jnp.float32 and jax.default_backend() == "cpu"
    if not lonely:
        return product(x, w, (((x.ndim - 1,), (contracted,)), ((), ())))
    twice = jnp.broadcast_to(x.reshape(1, -1), (2, x.shape[-1]))
    return product(twice, w, (((1,), (contracted,)), ((), ())))[0].reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def dot(x: Array, w: Array) -> Array:
    """y = x w in the type of x, accumulated in float32: x [..., I], w [I, O] -> [..., O].

    `w` may be stored in a wider type (float32 masters); it is rounded to the type of `x` for the product and its
    gradient comes back in its own type without a rounding in between.
    """
    return _on_rows(x, w, 0).astype(x.dtype)


def _dot_forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return dot(x, w), (x, w)


def _dot_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = saved
    g = g.astype(x.dtype)
    dx = product(g, w.astype(x.dtype), (((g.ndim - 1,), (1,)), ((), ()))).astype(x.dtype)
    dw = _outer(x, g).astype(w.dtype)
    return dx, dw


dot.defvjp(_dot_forward, _dot_backward)


@jax.custom_vjp
def add_bias(y: Array, bias: Array) -> Array:
    """y + b in the type of y; the gradient of b is summed over the rows in float32: y [..., O], b [O] -> [..., O]."""
    return y + bias.astype(y.dtype)


def _add_bias_forward(y: Array, bias: Array) -> tuple[Array, Array]:
    return add_bias(y, bias), bias


def _add_bias_backward(bias: Array, g: Array) -> tuple[Array, Array]:
    return g, jnp.sum(g, axis=tuple(range(g.ndim - bias.ndim)), dtype=jnp.float32).astype(bias.dtype)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


@jax.custom_vjp
def dot_transposed(x: Array, w: Array) -> Array:
    """y = x wᵀ in float32: x [..., D], w [V, D] -> [..., V]; the output layer, whose logits stay in float32."""
    return _on_rows(x, w, 1)


def _dot_transposed_forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return dot_transposed(x, w), (x, w)


def _dot_transposed_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = saved
    g = g.astype(x.dtype)
    dx = product(g, w.astype(x.dtype), (((g.ndim - 1,), (0,)), ((), ()))).astype(x.dtype)
    dw = _outer(g, x).astype(w.dtype)
    return dx, dw


dot_transposed.defvjp(_dot_transposed_forward, _dot_transposed_backward)


@jax.custom_vjp
def batched_scores(q: Array, k: Array) -> Array:
    """s = q kᵀ in float32, batched over the leading axes: q [..., T, H], k [..., S, H] -> [..., T, S]."""
    batch = tuple(range(q.ndim - 2))
    return product(q, k, (((q.ndim - 1,), (k.ndim - 1,)), (batch, batch)))


def _scores_forward(q: Array, k: Array) -> tuple[Array, tuple[Array, Array]]:
    return batched_scores(q, k), (q, k)


def _scores_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    q, k = saved
    g = g.astype(q.dtype)
    batch = tuple(range(q.ndim - 2))
    last, second = q.ndim - 1, q.ndim - 2
    dq = product(g, k, (((last,), (second,)), (batch, batch))).astype(q.dtype)
    dk = product(swap_last(g), q, (((last,), (second,)), (batch, batch))).astype(k.dtype)
    return dq, dk


batched_scores.defvjp(_scores_forward, _scores_backward)


@jax.custom_vjp
def batched_values(p: Array, v: Array) -> Array:
    """o = p v in the type of v, batched over the leading axes: p [..., T, S], v [..., S, H] -> [..., T, H]."""
    batch = tuple(range(p.ndim - 2))
    return product(p.astype(v.dtype), v, (((p.ndim - 1,), (v.ndim - 2,)), (batch, batch))).astype(v.dtype)


def _values_forward(p: Array, v: Array) -> tuple[Array, tuple[Array, Array]]:
    return batched_values(p, v), (p, v)


def _values_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    p, v = saved
    g = g.astype(v.dtype)
    batch = tuple(range(p.ndim - 2))
    last, second = p.ndim - 1, p.ndim - 2
    dp = product(g, v, (((last,), (last,)), (batch, batch))).astype(p.dtype)
    dv = product(swap_last(p.astype(v.dtype)), g, (((last,), (second,)), (batch, batch))).astype(v.dtype)
    return dp, dv


batched_values.defvjp(_values_forward, _values_backward)
