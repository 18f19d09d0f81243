"""The chunked loss on a mesh: sums and gradients of one device, and the table's gradient sent once, not per chunk."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from research.core import mesh as meshes
from research.ops.cross_entropy import cross_entropy, token_logprobs
from research.scaling.collectives import collectives

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
B, T, D, V = 4, 12, 8, 32


def losses(t, targets, mask):
    sums = cross_entropy(t["hidden"], t["table"], targets, mask, bias=t["bias"], chunk=3)
    return sums.nll / sums.weight, (sums.correct, sums.rows)


def every(t, targets, mask):
    """The loss with its gradients, without them, and log-probabilities with theirs."""
    apart = lambda t: jnp.sum(token_logprobs(t["hidden"], t["table"], targets, bias=t["bias"], chunk=3) * mask)  # noqa: E731
    with_gradients = jax.value_and_grad(losses, has_aux=True)(t, targets, mask)
    return with_gradients, losses(t, targets, mask), jax.value_and_grad(apart)(t)


@pytest.mark.parametrize("axes", [{"data": 2, "fsdp": 2, "sequence": 2}, {"sequence": 2, "tensor": 2}], ids=str)
def test_sums_and_gradients_are_those_of_one_device(axes):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    given = {"hidden": draw(B, T, D), "table": draw(V, D), "bias": draw(V)}
    targets = rng.integers(0, V, (B, T))
    # Nothing is asked of the first row, nor of the second half of the next one: devices without a target.
    mask = (rng.random((B, T)) < 0.6) * (np.arange(B) > 0)[:, None].astype(np.float32)
    mask[1, T // 2 :] = 0
    expected = jax.jit(every)(given, targets, mask)
    mesh = meshes.make_mesh(axes)
    cut = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), "sequence"))
    table = NamedSharding(mesh, PartitionSpec("tensor", "fsdp"))
    whole = NamedSharding(mesh, PartitionSpec())
    layouts = {"hidden": cut, "table": table, "bias": whole}, cut, cut
    with jax.set_mesh(mesh):
        found = jax.jit(every, in_shardings=layouts)(given, targets, mask)
    chex.assert_trees_all_close(jax.device_get(found), expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_the_table_is_sent_once():
    mesh = meshes.make_mesh({"data": 4})
    rows, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    shape = lambda dtype, *axes: jax.ShapeDtypeStruct(axes, dtype)  # noqa: E731
    given = {"hidden": shape(jnp.float32, B, T, D), "table": shape(jnp.float32, V, D), "bias": shape(jnp.float32, V)}
    layouts = {"hidden": rows, "table": whole, "bias": whole}, rows, rows
    run = jax.jit(jax.value_and_grad(losses, has_aux=True), in_shardings=layouts)
    with jax.set_mesh(mesh):
        text = run.lower(given, shape(jnp.int32, B, T), shape(jnp.float32, B, T)).compile().as_text()
    sent = sum(one.moved for one in collectives(text, 4) if one.kind == "all-reduce")
    once = 2 * 3 / 4 * 4 * (V * D + V)
    assert once <= sent <= 1.1 * once  # and a few scalars
