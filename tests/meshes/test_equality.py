"""Loss and gradients on a mesh equal those of one device: families, meshes, and what is trained beside what is frozen.

`tests/sharding/test_meshes.py` has whole updates of full models; here are LoRA over full, int8 and NF4 weights. The
table is slow, its diagonal is not.
"""

import functools
import itertools

import jax
import numpy as np
import pytest

from research import weights
from research.core import mesh as meshes
from research.core import tree
from research.recipes.assemble import heads
from research.recipes.pretrain import language_model_loss
from tests.models.conftest import tiny
from tests.parity.zoo import quick_jit
from tests.sharding.test_meshes import batch_for

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
KERNELS = ".*/layers/.*/kernel"
LORA = {"method": "lora", "rank": 2, "target": KERNELS}
METHODS = {
    "full": [],
    "lora": [LORA],
    "int8": [{"method": "int8", "target": KERNELS}, LORA],
    "nf4": [{"method": "nf4", "block": 16, "target": KERNELS}, LORA],
}
FAMILIES = ("llama", "bert", "t5")
MESHES = (
    {"data": 8},
    {"fsdp": 8},
    {"tensor": 2},
    {"sequence": 4},
    {"data": 2, "sequence": 4},
    {"data": 2, "fsdp": 2, "tensor": 2},
    {"fsdp": 2, "sequence": 2, "tensor": 2},
)
PRODUCTS = MESHES[-2:]
DIAGONAL = (("llama", "nf4"), ("bert", "lora"), ("t5", "int8"))
QUICK = [(family, method, axes) for (family, method), axes in itertools.product(DIAGONAL, PRODUCTS)]
QUICK += [("llama", "nf4", axes) for axes in MESHES[1:4:2]]
# All weights on every mesh, and each method where every axis cuts something.
TABLE = [c for c in itertools.product(FAMILIES, METHODS, MESHES) if c[1] == "full" or c[2] in PRODUCTS]
REST = [case for case in TABLE if case not in QUICK]


@functools.cache
def world(family, method):
    """The model, what learns (adapters that do something), what is frozen, the program, its result on one device."""
    model, params = tiny(family, vocab_size=64, n_layers=2)
    learning, frozen = params, {}
    if recipe := METHODS[method]:
        params = quick_jit(lambda p: weights.attach(p, recipe, jax.random.key(1)))(params)
        learning, frozen = tree.split(params, weights.trainable(params, recipe))
        rng = np.random.default_rng(5)
        learning = jax.tree.map(lambda w: w + 0.1 * rng.normal(size=w.shape).astype(np.float32), learning)
    loss = language_model_loss(model, chunk=4)

    def mean(learning, frozen, batch):
        total, aux = loss(tree.merge(learning, frozen) if frozen else learning, batch, None)
        return total / aux["weight"]

    program = jax.value_and_grad(mean)
    return model, learning, frozen, program, quick_jit(program)(learning, frozen, batch_for(model, 3))


def compare(family, method, axes):
    model, learning, frozen, program, (loss, gradients) = world(family, method)
    mesh = meshes.make_mesh(axes)
    whole = tree.merge(learning, frozen) if frozen else learning
    table = meshes.specs(whole, meshes.RULES, mesh, heads=heads(model.config))
    layouts = meshes.follow((learning, frozen), whole, table, mesh)
    placed = jax.device_put((learning, frozen), layouts)
    with jax.set_mesh(mesh):
        found, cut = jax.device_get(quick_jit(program)(*placed, meshes.place(batch_for(model, 3), mesh)))
    np.testing.assert_allclose(found, loss, rtol=1e-5)
    largest = max(float(np.linalg.norm(g)) for g in jax.tree.leaves(gradients))
    for path, expected in tree.paths(gradients).items():
        # A gradient that is zero but for rounding (BERT's biases of keys) is held to the others' size.
        size = max(float(np.linalg.norm(expected)), 1e-2 * largest)
        assert np.linalg.norm(tree.paths(cut)[path] - expected) <= 1e-5 * size, path


def name(case):
    family, method, axes = case
    return f"{family}-{method}-{'-'.join(f'{axis}{n}' for axis, n in axes.items())}"


@pytest.mark.parametrize("case", QUICK, ids=name)
def test_a_mesh_changes_neither_loss_nor_gradients(case):
    compare(*case)


@pytest.mark.slow
@pytest.mark.parametrize("case", REST, ids=name)
def test_nor_does_any_other_mesh(case):
    compare(*case)
