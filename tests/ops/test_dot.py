"""Every product, in both precisions, against numpy: values, gradients, and the layouts that XLA must not fuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from jax.test_util import check_grads

from research.core.mesh import make_mesh
from research.ops.dot import add_bias, batched_scores, batched_values, dot, dot_transposed

PRODUCTS = {
    "dot": (dot, (3, 7, 16), (16, 12), "bti,io->bto"),
    "dot_transposed": (dot_transposed, (3, 7, 16), (12, 16), "btd,vd->btv"),
    "scores": (batched_scores, (2, 3, 7, 16), (2, 3, 5, 16), "bnth,bnsh->bnts"),
    "values": (batched_values, (2, 3, 7, 5), (2, 3, 5, 16), "bnts,bnsh->bnth"),
}


def _pair(seed: int, a: tuple[int, ...], b: tuple[int, ...], dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in (a, b))


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize("seed", [0, 1])
def test_values_and_gradients_are_those_of_numpy(name, dtype, tolerance, seed):
    fn, first, second, spec = PRODUCTS[name]
    a, b = _pair(seed, first, second, dtype)
    wide = [np.asarray(x, np.float64) for x in (a, b)]
    out, pull = jax.vjp(jax.jit(fn), a, b)
    expected = np.einsum(spec, *wide)
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, atol=tolerance * np.abs(expected).max())
    g = jnp.asarray(np.random.default_rng(seed + 9).standard_normal(out.shape), dtype).astype(out.dtype)
    inputs, output = spec.split("->")
    left, right = inputs.split(",")
    expected = (
        np.einsum(f"{output},{right}->{left}", np.asarray(g, np.float64), wide[1]),
        np.einsum(f"{left},{output}->{right}", wide[0], np.asarray(g, np.float64)),
    )
    for given, wanted in zip(pull(g), expected, strict=True):
        assert given.dtype == dtype
        np.testing.assert_allclose(np.asarray(given, np.float64), wanted, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("name", PRODUCTS)
def test_gradients_by_finite_differences(name):
    fn, first, second, _ = PRODUCTS[name]
    check_grads(jax.jit(fn), _pair(0, first, second, jnp.float32), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


def test_master_weights_keep_their_type_and_get_unrounded_gradients():
    x, w = _pair(0, (4, 8, 16), (16, 12), jnp.float32)
    x = x.astype(jnp.bfloat16)
    dw = jax.jit(jax.grad(lambda w: jnp.sum(dot(x, w).astype(jnp.float32))))(w)
    assert dw.dtype == jnp.float32
    expected = np.repeat(np.asarray(x, np.float32).reshape(-1, 16).sum(0)[:, None], 12, axis=1)
    np.testing.assert_allclose(dw, expected, rtol=1e-6, atol=1e-6)


def _tied(x, w):
    hidden = dot(x, w)
    logits = dot_transposed(hidden, w)
    return jnp.sum(jax.nn.logsumexp(logits, axis=-1))


@pytest.mark.parametrize(
    "program",
    [
        lambda x, w: dot(x, w).T,
        lambda x, w: jax.vmap(dot, in_axes=(0, None), out_axes=1)(jnp.stack([x, x]), w),
        lambda x, w: jax.vmap(dot, in_axes=(None, 0), out_axes=2)(x, jnp.stack([w, w])),
        lambda x, w: dot_transposed(x, w.T).T,
        lambda x, w: jax.grad(_tied, argnums=(0, 1))(x, w),
        lambda x, w: jax.grad(lambda w: jnp.sum(dot(x, w.T.T).astype(jnp.float32)) * 2)(w).T,
        lambda x, w: jax.vmap(jax.grad(_tied, argnums=1), in_axes=(0, None), out_axes=1)(jnp.stack([x, 2 * x]), w),
        lambda x, w: batched_scores(x[None], w.T[None]).transpose(0, 2, 1),
    ],
)
def test_transposed_tied_and_vmapped_products_run_in_bf16(program):
    # XLA's CPU backend has no bf16 x bf16 -> f32 kernel with a transposed output: it must never be asked for one.
    x, w = _pair(3, (64, 32), (32, 48), jnp.bfloat16)
    given = jax.jit(program)(x, w)
    expected = jax.jit(program)(x.astype(jnp.float32), w.astype(jnp.float32))
    for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        scale = float(jnp.max(jnp.abs(b)))
        np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b), atol=0.03 * scale)


@pytest.mark.parametrize("axes", [{"data": 8}, {"data": 2, "tensor": 4}])
def test_sharded_products_equal_those_of_one_device(axes):
    x, w = _pair(4, (8, 16, 32), (32, 48), jnp.bfloat16)
    fn = jax.grad(lambda x, w: jnp.sum(jnp.square(dot(x, w).astype(jnp.float32))), argnums=(0, 1))
    expected = jax.jit(fn)(x, w)
    mesh = make_mesh(axes)
    with jax.set_mesh(mesh):
        put = lambda a, *spec: jax.device_put(a, NamedSharding(mesh, PartitionSpec(*spec)))  # noqa: E731
        given = jax.jit(fn)(put(x, "data"), put(w, None, "tensor"))
    for a, b in zip(given, expected, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=0.02, atol=0.5)


def test_the_gradient_of_a_bf16_bias_is_summed_in_float32():
    g = jax.random.normal(jax.random.key(0), (3, 700, 5)).astype(jnp.bfloat16)
    y, bias = jnp.zeros((3, 700, 5), jnp.bfloat16), jnp.zeros((5,), jnp.float32)
    gradient = jax.jit(lambda b: jax.vjp(lambda b: add_bias(y, b), b)[1](g)[0])(bias)
    assert gradient.dtype == jnp.float32
    np.testing.assert_allclose(gradient, np.float64(g).sum((0, 1)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (1, 1, 6)])
def test_one_row_in_bf16_equals_the_row_among_others(shape):
    x = jax.random.normal(jax.random.key(1), shape).astype(jnp.bfloat16)
    w = jax.random.normal(jax.random.key(2), (6, 9)).astype(jnp.bfloat16)
    expected = np.float32(x) @ np.float32(w)
    for y in (jax.jit(dot)(x, w), jax.jit(dot_transposed)(x, w.T)):
        assert y.shape == (*shape[:-1], 9)
        np.testing.assert_allclose(np.float32(y), expected, rtol=1e-2, atol=1e-2)
