"""A mesh of any shape computes what one device computes: losses and weights after several updates."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core import mesh as meshes
from research.core import tree
from research.models import build
from research.recipes.assemble import heads
from research.recipes.pretrain import language_model_loss
from research.training import optim, state
from research.training.step import make_step
from tests.models.conftest import tiny_config

MESHES = [
    {"data": 8},
    {"fsdp": 8},
    {"tensor": 2},
    {"data": 2, "fsdp": 2, "tensor": 2},
    {"fsdp": 2, "sequence": 2, "tensor": 2},
]
OPTIMIZER = {"name": "adamw", "learning_rate": 1e-2, "schedule": "constant", "weight_decay": 0.1}


def batch_for(model, seed):
    config, rng = model.config, np.random.default_rng(seed)
    tokens = rng.integers(3, config.vocab_size, (8, 8)).astype(np.int32)
    # Unequal numbers of targets per row, and one row without any: what a shard holds must not matter.
    mask = (rng.random((8, 8)) < np.linspace(0, 1, 8)[:, None]).astype(np.float32)
    batch = {"tokens": tokens, "targets": np.roll(tokens, -1, 1), "loss_mask": mask}
    if config.kind == "encoder_decoder":
        batch["inputs"] = rng.integers(3, config.vocab_size, (8, 8)).astype(np.int32)
    return batch


def train(name, axes, accumulate=1, policy="f32"):
    model = build(tiny_config(name, vocab_size=64, d_ff=48), policy=policy)
    mesh = meshes.make_mesh(axes) if axes else None
    optimizer = optim.make(OPTIMIZER, model.abstract(), steps=3)
    begin, frozen = state.create(
        lambda: model.init(jax.random.key(0)), optimizer, rng=jax.random.key(1), mesh=mesh, heads=heads(model.config)
    )
    step = make_step(language_model_loss(model, chunk=4), optimizer, accumulate=accumulate, mesh=mesh)
    losses = []
    for n in range(3):
        begin, metrics = step(begin, frozen, batch_for(model, n))
        losses.append(float(metrics["loss"]))
    return losses, begin.params


@pytest.fixture(scope="module")
def alone():
    """Each family on one device."""
    return {name: train(name, None) for name in ("llama", "bert", "t5")}


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
@pytest.mark.parametrize("axes", MESHES, ids=str)
def test_a_mesh_changes_nothing(alone, name, axes):
    if name != "llama" and axes not in ({"fsdp": 8}, MESHES[3]):
        pytest.skip("the other families take the two meshes that cut everything")
    losses, params = train(name, axes)
    np.testing.assert_allclose(losses, alone[name][0], rtol=1e-5)
    # Adam divides by a root of squares, so a rounding of a tiny gradient is seen at the size of the learning rate.
    chex.assert_trees_all_close(jax.device_get(params), jax.device_get(alone[name][1]), rtol=1e-3, atol=2e-4)


def test_micro_batches_on_a_mesh_are_the_big_batch(alone):
    losses, _ = train("llama", {"data": 2, "tensor": 2}, accumulate=2)
    np.testing.assert_allclose(losses, alone["llama"][0], rtol=1e-5)


def test_bf16_trains_on_a_mesh(alone):
    losses, params = train("llama", {"fsdp": 2, "tensor": 2}, policy="bf16")
    np.testing.assert_allclose(losses, alone["llama"][0], rtol=2e-2)
    assert params["embed"]["tokens"]["embedding"].dtype == jnp.float32


def test_weights_and_moments_are_really_cut():
    model = build(tiny_config("llama", vocab_size=64))
    mesh = meshes.make_mesh({"fsdp": 4, "tensor": 2})
    optimizer = optim.make(OPTIMIZER, model.abstract(), steps=3)
    begin, _ = state.create(lambda: model.init(jax.random.key(0)), optimizer, rng=jax.random.key(1), mesh=mesh)
    cut = {
        path: leaf.addressable_shards[0].data.size / leaf.size
        for path, leaf in tree.paths(begin).items()
        if path.endswith("mlp/up/kernel")
    }
    assert len(cut) == 3 and set(cut.values()) == {1 / 8}, cut


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"tensor": 4}, r"'decoder/layers/00/attention/k/kernel' .* holds 2 heads, which mesh axis 'tensor' of size 4"),
        ({"data": 3}, "axis 0 of batch"),
        ({"data": 16}, "16"),
        ({"model": 2}, r"unknown mesh axes \['model'\]; have \['data', 'fsdp', 'tensor', 'sequence'\]"),
    ],
    ids=str,
)
def test_a_mesh_that_does_not_divide_is_refused(axes, message):
    with pytest.raises(ValueError, match=message):
        train("llama", axes)
