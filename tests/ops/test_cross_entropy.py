"""Chunked cross-entropy against numpy in float64: values, gradients, masks, extremes, meshes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from research.core.mesh import make_mesh
from research.ops.cross_entropy import cross_entropy, over_projections, token_logprobs

B, T, D, V = 3, 7, 8, 33


def _case(seed: int, dtype: jnp.dtype = jnp.float32, scale: float = 1.0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "hidden": jnp.asarray(scale * rng.standard_normal((B, T, D)), dtype),
        "weight": jnp.asarray(rng.standard_normal((V, D)), jnp.float32),
        "targets": jnp.asarray(rng.integers(0, V, (B, T)), jnp.int32),
        "loss_mask": jnp.asarray(rng.integers(0, 3, (B, T)) / 2, jnp.float32),
        "bias": jnp.asarray(rng.standard_normal(V), jnp.float32),
    }


def _by_hand(hidden, weight, targets, loss_mask, bias=None, cap=None):
    """Loss, per-token log-probabilities, and gradients for hidden, weight, bias, in float64."""
    h, w, m = (np.asarray(a, np.float64) for a in (hidden, weight, loss_mask))
    raw = h @ w.T + (0 if bias is None else np.asarray(bias, np.float64))
    logits = raw if cap is None else cap * np.tanh(raw / cap)
    logits = logits - logits.max(-1, keepdims=True)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    hot = np.eye(V)[np.asarray(targets)]
    dl = (np.exp(logp) - hot) * m[..., None]
    if cap is not None:
        dl = dl * (1 - np.tanh(raw / cap) ** 2)
    chosen = (logp * hot).sum(-1)
    gradients = dl @ w, np.einsum("btv,btd->vd", dl, h), dl.sum((0, 1))
    return -(chosen * m).sum(), chosen, gradients


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize(("cap", "biased"), [(None, False), (5.0, True), (None, True)])
def test_loss_and_gradients_are_those_of_numpy(seed, chunk, cap, biased):
    case = _case(seed)
    bias = case.pop("bias") if biased else case.pop("bias") * 0

    def loss(h, w, b):
        out = cross_entropy(h, w, case["targets"], case["loss_mask"], bias=b, cap=cap, chunk=chunk)
        return 2 * out.nll, out

    (value, out), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(
        case["hidden"], case["weight"], bias
    )
    expected, _, wanted = _by_hand(**case, bias=bias, cap=cap)
    np.testing.assert_allclose(value, 2 * expected, rtol=1e-5)
    np.testing.assert_allclose(out.weight, np.sum(case["loss_mask"]))
    for g, e in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(g, 2 * e, atol=1e-4, rtol=1e-4)
    plain = cross_entropy(**case, bias=bias, cap=cap, chunk=chunk)
    np.testing.assert_allclose(plain.nll, expected, rtol=1e-5)
    np.testing.assert_allclose(plain.correct, out.correct)


def test_bf16_hidden_states_keep_float32_gradients_of_the_table():
    case = _case(2, jnp.bfloat16)
    bias = case.pop("bias")
    rounded = case | {"weight": case["weight"].astype(jnp.bfloat16)}
    loss = lambda h, w: cross_entropy(h, w, case["targets"], case["loss_mask"], bias=bias, chunk=4).nll  # noqa: E731
    value, (dh, dw) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(case["hidden"], case["weight"])
    expected, _, (eh, ew, _) = _by_hand(**rounded, bias=bias)
    assert dh.dtype == jnp.bfloat16 and dw.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    np.testing.assert_allclose(dh.astype(jnp.float32), eh, atol=0.03)
    np.testing.assert_allclose(dw, ew, atol=0.03)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_masked_positions_contribute_exactly_nothing(poison):
    case = _case(3)
    bias = case.pop("bias")
    mask = case["loss_mask"].at[1, 2:5].set(0)
    spoilt = case["hidden"].at[1, 2:5].set(poison), case["targets"].at[1, 2:5].set(-100)

    def loss(h, w, b, y):
        return cross_entropy(h, w, y, mask, bias=b, chunk=3).nll

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    clean = run(case["hidden"], case["weight"], bias, case["targets"])
    dirty = run(spoilt[0], case["weight"], bias, spoilt[1])
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.any(np.asarray(dirty[1][0])[1, 2:5])


def test_a_mask_of_zeros_gives_zero_loss_and_gradients():
    case = _case(4) | {"loss_mask": jnp.zeros((B, T))}
    value, grad = jax.value_and_grad(lambda w: cross_entropy(**(case | {"weight": w})).nll)(case["weight"])
    assert float(value) == 0 and not np.any(np.asarray(grad))


def test_huge_logits_stay_finite():
    case = _case(5, scale=1e4)
    bias = case.pop("bias")
    value, grad = jax.value_and_grad(lambda h: cross_entropy(h, *list(case.values())[1:], bias=bias).nll)(
        case["hidden"]
    )
    expected, _, (wanted, _, _) = _by_hand(**case, bias=bias)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grad, wanted, atol=1e-2)


@pytest.mark.parametrize("chunk", [2, 7])
def test_token_logprobs_and_any_cotangent(chunk):
    case = _case(6)
    mask, cotangent = case.pop("loss_mask"), jnp.asarray(np.random.default_rng(1).standard_normal((B, T)), jnp.float32)
    expected, chosen, _ = _by_hand(**case, loss_mask=mask, cap=4.0)
    given = token_logprobs(**case, cap=4.0, chunk=chunk)
    np.testing.assert_allclose(given, chosen, atol=1e-4)
    np.testing.assert_allclose(-jnp.sum(given * mask), expected, rtol=1e-5)
    score = lambda w: jnp.sum(cotangent * token_logprobs(**(case | {"weight": w}), cap=4.0, chunk=chunk))  # noqa: E731
    wanted = _by_hand(**case, loss_mask=-cotangent, cap=4.0)[2][1]
    np.testing.assert_allclose(jax.jit(jax.grad(score))(case["weight"]), wanted, atol=1e-3)


def test_vmap_and_a_frozen_table():
    case = _case(7)

    def loss(h, y, m):
        return cross_entropy(h[None], case["weight"], y[None], m[None], bias=case["bias"], chunk=3).nll

    args = case["hidden"], case["targets"], case["loss_mask"]
    rows = jax.jit(jax.vmap(jax.grad(loss)))(*args)
    whole = jax.jit(jax.grad(lambda h: cross_entropy(**(case | {"hidden": h})).nll))(case["hidden"])
    np.testing.assert_allclose(rows, whole, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_batch_over_eight_devices_gives_the_same(dtype):
    rng = np.random.default_rng(8)
    h, w = jnp.asarray(rng.standard_normal((8, 6, D)), dtype), jnp.asarray(rng.standard_normal((V, D)), jnp.float32)
    y, m = jnp.asarray(rng.integers(0, V, (8, 6)), jnp.int32), jnp.ones((8, 6))
    fn = jax.value_and_grad(lambda h, w, y, m: cross_entropy(h, w, y, m, chunk=4).nll, argnums=(0, 1))
    expected = jax.jit(fn)(h, w, y, m)
    mesh = make_mesh({"data": 8})
    with jax.set_mesh(mesh):
        rows = NamedSharding(mesh, PartitionSpec("data"))
        given = jax.jit(fn)(*(jax.device_put(a, rows) for a in (h,)), w, *(jax.device_put(a, rows) for a in (y, m)))
    for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("chunk", [3, 100])
def test_two_output_layers_are_walked_together(chunk):
    """The KL from a teacher of another width, chunk by chunk, and its gradients, against all logits at once."""
    rng = np.random.default_rng(9)
    case = _case(10)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    wide, table, cotangent = normal(B, T, D + 4), normal(V, D + 4), normal(B, T)

    def apart(z, t, scale):
        log_p, log_q = jax.nn.log_softmax(t), jax.nn.log_softmax(z)
        return {"kl": scale * jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1), "best": jnp.argmax(t, -1)}

    def chunked(h, w, t, b):
        layers = [(h, w, b, 5.0), (wide, t, None, None)]
        found = over_projections(apart, layers, cotangent, chunk=chunk)
        return jnp.sum(found["kl"] * cotangent), found

    def whole(h, w, t, b):
        found = apart(5 * jnp.tanh((h @ w.T + b) / 5), wide @ t.T, cotangent)
        return jnp.sum(found["kl"] * cotangent), found

    args = (case["hidden"], case["weight"], table, case["bias"])
    found, wanted = (jax.jit(jax.grad(f, argnums=(0, 1, 2, 3), has_aux=True))(*args) for f in (chunked, whole))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
