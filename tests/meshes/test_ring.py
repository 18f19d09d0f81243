"""Attention with positions cut over a mesh against the same attention on one device, with all gradients."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core import mesh as meshes
from research.ops.attention import attention
from research.ops.masks import EVERYONE, Mask
from research.ops.positions import Rope, alibi_bias, relative_buckets, rope_tables, rotate
from research.scaling.collectives import collectives

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
B, T, S, N, K, H = 2, 16, 8, 4, 2, 8
COUNT = jnp.arange(T)[None]
# Row 0: three texts, a shard boundary inside of the second, the last one short; row 1: one text and padding.
SEGMENTS = jnp.array([[1] * 5 + [2] * 7 + [3] * 4, [1] * 13 + [0] * 3])
POSITIONS = jnp.array([[*range(5), *range(7), *range(4)], [*range(13), *range(3)]])
PACKED = Mask(True, POSITIONS, POSITIONS, SEGMENTS, SEGMENTS, ordered=True)
# Queries of the last segment see no key at all: their weights are equal, and nothing of them reaches a query or key.
BLIND = Mask(query_segments=SEGMENTS + 1, key_segments=SEGMENTS)
SOURCE = Mask(query_segments=jnp.ones((B, T), int), key_segments=jnp.array([[1] * 8, [1] * 3 + [0] * 5]))
SHARED = Mask(query_segments=SEGMENTS, key_segments=jnp.where(SEGMENTS == 1, EVERYONE, SEGMENTS))


def rotated(x):
    return rotate(x, rope_tables(POSITIONS, Rope(), H))


def relative(t):
    """T5's bias from its table of buckets, which learns."""
    return t["table"][relative_buckets(COUNT[:, None] - COUNT[:, :, None], bidirectional=True, buckets=8)].transpose(
        0, 3, 1, 2
    )


# name -> (mask, bias of what learns, window)
CASES = {
    "causal, grouped heads": (Mask(causal=True), None, None),
    "both ways": (Mask(), None, None),
    "packed": (PACKED, None, None),
    "window": (PACKED, None, 3),
    "traced window": (PACKED, None, jnp.int32(6)),
    "prefix sees all": (Mask(True, horizon=jnp.maximum(COUNT, 9)), None, None),
    "nothing to see": (BLIND, None, None),
    "shared by all segments": (SHARED, None, None),
    "alibi": (PACKED, lambda t: alibi_bias(POSITIONS, POSITIONS, N), None),
    "t5": (Mask(), relative, None),
    "bias of each row": (Mask(), lambda t: t["bias"], None),
}


def outputs(t):
    """Every case, with RoPE in the packed one, and cross-attention over a shorter source."""
    out = {}
    for name, (mask, bias, window) in CASES.items():
        q, k, v = t[name]
        q, k = (rotated(q), rotated(k)) if name == "packed" else (q, k)
        out[name] = attention(q, k, v, mask, scale=0.3, bias=bias and bias(t), window=window)[0]
    out["cross"] = attention(*t["cross"], SOURCE, scale=0.3)[0]
    return out


def learned():
    """Queries, keys and values of each case, so that its gradients are its own."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    own = {name: (draw(B, T, N, H), draw(B, T, K, H), draw(B, T, K, H)) for name in CASES}
    own["cross"] = draw(B, T, N, H), draw(B, S, K, H), draw(B, S, K, H)
    return own | {"table": draw(8, N), "bias": draw(B, N, T, T)}


@jax.jit
def with_gradients(t):
    """Outputs, and the gradients of a sum of them in which each number has a weight of its own."""
    out, pull = jax.vjp(outputs, t)
    weights = {name: jnp.cos(jnp.arange(o.size, dtype=jnp.float32)).reshape(o.shape) for name, o in out.items()}
    return out, pull(weights)[0]


@pytest.fixture(scope="module")
def alone():
    return with_gradients(learned())


@pytest.mark.parametrize("axes", [{"sequence": 4}, {"data": 2, "sequence": 2, "tensor": 2}], ids=str)
def test_the_ring_is_attention_on_one_device(alone, axes):
    with jax.set_mesh(meshes.make_mesh(axes)):
        program = with_gradients.lower(learned()).compile()
        found = jax.device_get(program(learned()))
    chex.assert_trees_all_close(found, alone, rtol=1e-5, atol=1e-5)
    assert "collective-permute" in {one.kind for one in collectives(program.as_text(), 8)}
    # A test that cannot fail holds nothing: without its mask a case is another.
    q, k, v = learned()["window"]
    unbound = attention(q, k, v, PACKED, scale=0.3)[0]
    assert float(jnp.max(jnp.abs(alone[0]["window"] - unbound))) > 0.1


def gradient_memory(devices, length, dtype=jnp.float32):
    """Bytes of temporaries on a device, and the kinds of communication, of the gradients of causal attention."""
    shapes = [jax.ShapeDtypeStruct((1, length, heads, 16), dtype) for heads in (4, 2, 2)]
    mesh = meshes.make_mesh({"sequence": devices})
    cut = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "sequence"))
    loss = lambda q, k, v: attention(q, k, v, Mask(causal=True), scale=0.25)[0].astype(jnp.float32).sum()  # noqa: E731
    with jax.set_mesh(mesh):
        run = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), in_shardings=cut, out_shardings=cut).lower(*shapes).compile()
    return run.memory_analysis().temp_size_in_bytes, {c.kind for c in collectives(run.as_text(), devices)}


def test_memory_of_a_device_depends_on_its_own_part_alone():
    """Twice the length on twice the devices takes the same; gathered keys, or scores against them, would not."""
    (small, kinds), (large, _) = gradient_memory(4, 512), gradient_memory(8, 1024)
    assert kinds == {"collective-permute"}
    assert large == pytest.approx(small, rel=0.05)
    longer, _ = gradient_memory(4, 1024)
    assert 2 * large < longer < 4.2 * large  # scores of a part with itself: the square of its length


def test_lengths_that_the_ring_does_not_divide_are_gathered_and_weights_are_given():
    even = learned()["causal, grouped heads"]
    odd = [x[:, :15] for x in even]
    run = functools.partial(attention, mask=Mask(causal=True), scale=0.3)
    several = jax.jit(lambda odd, even: (run(*odd)[0], run(*even, weights=True), run(*even, cap=2.0)[0]))
    expected = several(odd, even)
    with jax.set_mesh(meshes.make_mesh({"sequence": 4})):
        chex.assert_trees_all_close(jax.device_get(several(odd, even)), expected, rtol=1e-5, atol=1e-5)
