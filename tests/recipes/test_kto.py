"""KTO on models: a numpy loop over answers scored one by one, its baseline from mismatched answers, any mesh."""

import chex
import jax
import numpy as np

from research.core import mesh as meshes
from research.data.preference_rows import WithReference
from research.data.rows import MappedRows
from research.data.unpaired import desirable
from research.recipes.assemble import heads
from research.recipes.kto import kto_loss
from research.training import optim, state
from research.training.step import make_step
from tests.models.conftest import tiny
from tests.parity.zoo import quick_jit
from tests.recipes.test_dpo import batch_of, by_hand, rows_of

GOOD = np.array([True, False, True, False])


def rows(room=0):
    """The answers of test_dpo: the first of each pair is judged, the second stands for the mismatched one."""
    return MappedRows(rows_of("llama", room), desirable)


def judged(batch):
    return batch | {"desirable": GOOD.astype(np.float32)}


def numpy_kto(policy, reference, beta, weights):
    """Each answer alone, and z₀ over all mismatched ones."""
    z = max(0.0, float(np.mean(policy[:, 1] - reference[:, 1])))
    total = 0.0
    for r, good in zip(policy[:, 0] - reference[:, 0], GOOD, strict=True):
        side = 1 if good else -1
        total += weights[0 if good else 1] * (1 - 1 / (1 + np.exp(-side * beta * (r - z))))
    return total, z


def test_the_loss_is_that_of_answers_scored_one_by_one():
    model, base = tiny("llama", n_layers=1)
    noise = np.random.default_rng(1)
    policy = jax.tree.map(lambda w: w + 0.05 * noise.normal(size=w.shape).astype(np.float32), base)
    said, reference = (by_hand("llama", model, params) for params in (policy, base))
    weights = (0.7, 1.4)
    loss_fn = kto_loss(
        model, reference="copy", chunk=4, beta=0.3, desirable_weight=weights[0], undesirable_weight=weights[1]
    )
    for turn in (1, -1):  # the mismatched answers are likelier than before, or less likely: z₀ is 0 then
        both = {"policy": policy, "reference": base} if turn == 1 else {"policy": base, "reference": policy}
        wanted, z = numpy_kto(*(said, reference)[::turn], 0.3, weights)
        batch = judged(batch_of(rows(room=2)))
        batch = {k: np.pad(v, [(0, 2)] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()}  # two rows of nothing
        if turn == 1:
            run = quick_jit(jax.value_and_grad(lambda p, b: loss_fn(p, b, None), has_aux=True))
        (loss, aux), grads = run(both, batch)
        np.testing.assert_allclose(loss, wanted, rtol=1e-4)
        assert aux["weight"] == 4
        np.testing.assert_allclose(aux["metrics"]["kl"][0] / 4, z, rtol=1e-3, atol=1e-6)
        assert not any(np.asarray(g).any() for g in jax.tree.leaves(grads["reference"]))
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads["policy"]))


def test_nothing_is_learned_from_mismatched_answers():
    model, base = tiny("llama", n_layers=1)
    loss_fn = kto_loss(model, reference="batch", chunk=4)
    batch = judged(batch_of(WithReference(rows(), np.linspace(-20, -5, 8).reshape(4, 2))))
    batch["reference"][:, 1] = 0.0  # the policy seems to have moved away: z₀ is 0 whatever the mismatched answers are
    other = {name: x.copy() for name, x in batch.items()}
    other["targets"][:, 1] = np.where(batch["loss_mask"][:, 1] > 0, 5, 0)
    grad = quick_jit(jax.grad(lambda p, b: loss_fn(p, b, None)[0]))
    chex.assert_trees_all_close(grad(base, batch), grad(base, other), rtol=1e-6)


def test_a_mesh_changes_nothing():
    model, base = tiny("llama", vocab_size=64, n_layers=1)
    # Answers that are likelier than the reference says: z₀ is above 0, a sum over all devices.
    batch = judged(batch_of(WithReference(rows(), np.linspace(-40, -60, 8).reshape(4, 2))))
    batch = {k: np.concatenate([v, v[::-1]]) for k, v in batch.items()}
    batch["loss_mask"][5, 1] = 0  # one device has a mismatched answer less

    def updated(axes):
        mesh = meshes.make_mesh(axes) if axes else None
        rule = {"name": "sgd", "learning_rate": 1.0, "schedule": "constant", "clip": None}
        optimizer = optim.make(rule, base, steps=1)
        begin, frozen = state.create(base, optimizer, rng=jax.random.key(1), mesh=mesh, heads=heads(model.config))
        step = make_step(kto_loss(model, reference="batch", chunk=4), optimizer, mesh=mesh)
        after, metrics = step(begin, frozen, batch)
        return {k: float(v) for k, v in metrics.items()}, jax.device_get(after.params)

    expected = updated(None)
    assert expected[0]["kl"] > 1 and expected[0]["grad_norm"] > 1e-3
    chex.assert_trees_all_close(updated({"data": 2, "fsdp": 2, "tensor": 2}), expected, rtol=1e-4, atol=1e-5)
