"""Trees by path: selection, splitting, stacking, cutting; errors that say what exists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from research.core import tree


@struct.dataclass
class Pair:
    first: object
    second: object


@pytest.fixture
def params():
    run = {"mlp": {"up": {"kernel": jnp.arange(24.0).reshape(3, 2, 4)}}, "norm": {"scale": jnp.ones((3, 2))}}
    return {"decoder": {"layers": {"00": run}, "final_norm": {"scale": jnp.ones(2)}}, "embed": jnp.zeros((5, 2))}


def test_paths_name_every_leaf_and_generic_drops_the_run(params):
    assert list(tree.paths(params)) == [
        "decoder/final_norm/scale",
        "decoder/layers/00/mlp/up/kernel",
        "decoder/layers/00/norm/scale",
        "embed",
    ]
    assert tree.generic("decoder/layers/12/mlp/up/kernel") == "decoder/layers/mlp/up/kernel"
    assert tree.generic("layers/00/x") == "layers/x"
    assert tree.generic("embed/tokens") == "embed/tokens"


def test_paths_go_inside_struct_nodes():
    assert list(tree.paths({"w": Pair(jnp.ones(1), jnp.ones(2))})) == ["w/first", "w/second"]


def test_select_matches_whole_generic_paths(params):
    chosen = tree.paths(tree.select(params, [".*/scale"]))
    assert [path for path, keep in chosen.items() if keep] == [
        "decoder/final_norm/scale",
        "decoder/layers/00/norm/scale",
    ]
    assert sum(tree.paths(tree.select(params, "embed")).values()) == 1


def test_a_pattern_that_matches_nothing_lists_the_candidates(params):
    with pytest.raises(ValueError, match=r"'.\*/kernl' matches no weight.*decoder/layers/mlp/up/kernel"):
        tree.select(params, ".*/kernl")
    with pytest.raises(ValueError, match="matches no weight"):
        tree.assign(params, [("nothing", 1)], default=0)


def test_assign_first_match_wins_and_everything_must_be_covered(params):
    values = tree.paths(tree.assign(params, [(".*/layers/norm/.*", "a"), (".*/scale", "b")], default="c"))
    assert values == {
        "decoder/final_norm/scale": "b",
        "decoder/layers/00/mlp/up/kernel": "c",
        "decoder/layers/00/norm/scale": "a",
        "embed": "c",
    }
    with pytest.raises(ValueError, match="no rule covers 'decoder/layers/00/mlp/up/kernel'"):
        tree.assign(params, [(".*/scale", 1), ("embed", 2)])


def test_split_and_merge_are_inverse(params):
    mask = tree.select(params, ".*/kernel")
    chosen, rest = tree.split(params, mask)
    assert tree.count(chosen) == 24 and tree.count(rest) == tree.count(params) - 24
    merged = tree.merge(chosen, rest)
    assert tree.paths(merged).keys() == tree.paths(params).keys()
    np.testing.assert_array_equal(tree.merge(rest, chosen)["embed"], params["embed"])


def test_unstack_stack_and_cut_keep_the_values(params):
    apart = tree.unstack(params)
    assert isinstance(apart["decoder"]["layers"], tuple) and len(apart["decoder"]["layers"]) == 3
    np.testing.assert_array_equal(
        apart["decoder"]["layers"][1]["mlp"]["up"]["kernel"],
        params["decoder"]["layers"]["00"]["mlp"]["up"]["kernel"][1],
    )
    back = tree.stack(apart)
    for path, leaf in tree.paths(params).items():
        np.testing.assert_array_equal(tree.paths(back)[path], leaf)
    pieces = tree.cut(params, [1])["decoder"]["layers"]
    assert list(pieces) == ["00", "01"] and tree.run_length(pieces["01"]) == 2
    assert len(tree.unstack(tree.cut(params, [1, 2]))["decoder"]["layers"]) == 3


def test_stack_cuts_a_run_where_shapes_differ(params):
    apart = tree.unstack(params)
    layers = list(apart["decoder"]["layers"])
    layers[1] = {"mlp": {"up": {"kernel": jnp.ones((2, 3))}}, "norm": {"scale": jnp.ones(2)}}
    assert list(tree.stack({"layers": tuple(layers)})["layers"]) == ["00", "01", "02"]


def test_runs_are_ordered_by_number_not_by_name():
    runs = {"100": {"x": jnp.ones((1, 1)) * 3}, "00": {"x": jnp.ones((20, 1))}, "20": {"x": jnp.ones((80, 1)) * 2}}
    assert [name for name, _ in tree.ordered(runs)] == ["00", "20", "100"]
    assert float(tree.unstack({"layers": runs})["layers"][100]["x"][0]) == 3


def test_counts_and_bytes(params):
    assert tree.count(params) == 24 + 6 + 2 + 10
    assert tree.nbytes({"a": jnp.ones((3, 5), jnp.bfloat16), "b": jnp.ones(2, jnp.int8)}) == 32
    assert tree.table(params)[0] == ("decoder/final_norm/scale", (2,), "float32", 2)


def test_check_same_lists_everything_that_does_not_fit(params):
    tree.check_same(params, params)
    other = {"decoder": params["decoder"], "embed": jnp.zeros((5, 3)), "more": jnp.zeros(1)}
    with pytest.raises(ValueError, match=r"missing \[\]; unexpected \['more'\]; misshaped .*expected \(5, 2\), given"):
        tree.check_same(params, other)


def test_a_fingerprint_tells_weights_apart_but_not_their_layout():
    layers = {"up": {"kernel": jnp.arange(12.0).reshape(2, 3, 2)}}
    stacked = {"decoder": {"layers": {"00": layers}}, "embed": jnp.ones((3, 2))}
    first = tree.fingerprint(stacked)
    assert first == tree.fingerprint(tree.unstack(stacked)) == tree.fingerprint(tree.cut(stacked, (1,)))
    assert first == tree.fingerprint(jax.tree.map(lambda x: x.astype(jnp.bfloat16), stacked))
    trained = tree.fingerprint({**stacked, "embed": jnp.ones((3, 2)).at[2, 1].set(1.5)})
    other = tree.fingerprint({**stacked, "embed": jnp.ones((2, 3))})
    # The values are those of the same model in another shape; only the first half tells.
    assert [a == b for a, b in zip(first.split("-"), trained.split("-"), strict=True)] == [True, False]
    assert [a == b for a, b in zip(first.split("-"), other.split("-"), strict=True)] == [False, True]
