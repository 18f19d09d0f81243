"""Generation beside weights on a mesh: the rows are cut over its batch axes, and the text stays what it was."""

import importlib

import jax
import numpy as np

from research.core import mesh as meshes
from research.decoding import Sampling, generate, loop
from research.recipes.assemble import heads
from tests.models.conftest import tiny

PROMPTS = [[5, 9, 11], [4], [8, 8, 3, 20, 31], [17, 6], [40, 41], [12, 13, 14, 15], [3], [50, 7]]


def test_rows_are_cut_and_the_text_is_the_same(monkeypatch):
    model, params = tiny("llama", vocab_size=64)
    mesh = meshes.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    placed = jax.device_put(params, meshes.shardings(params, meshes.RULES, mesh, heads=heads(model.config)))
    layouts, advance = [], loop.advance

    def spied(model, plan, params, inputs, state, limit):
        layouts.append(
            [x.sharding.shard_shape(x.shape)[0] for x in (inputs.keys, state.history, *jax.tree.leaves(state.cache))]
        )
        return advance(model, plan, params, inputs, state, limit)

    monkeypatch.setattr(importlib.import_module("research.decoding.generate"), "advance", spied)
    how = {"max_new_tokens": 6, "sampling": Sampling(temperature=0.7), "key": 3}
    alone, cut = (generate(model, p, PROMPTS, **how) for p in (params, placed))
    np.testing.assert_array_equal(cut.tokens, alone.tokens)
    np.testing.assert_allclose(cut.logprobs, alone.logprobs, atol=1e-5)
    assert set(layouts[0]) == {8} and set(layouts[1]) == {2}, layouts


def test_rows_that_the_mesh_does_not_divide_stay_whole():
    mesh = meshes.make_mesh({"data": 4})
    weight = jax.device_put(np.zeros((4, 4)), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    arrays = {"tokens": np.zeros((3, 5)), "step": np.zeros(())}
    assert meshes.rows_beside(weight, arrays, 3) is arrays
    assert meshes.rows_beside(np.zeros((4, 4)), arrays, 3) is arrays
