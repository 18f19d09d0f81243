import json

import chex
import jax
import numpy as np
import pytest

from research.core import tree
from research.core.mesh import make_mesh
from research.training import optim
from research.training.checkpoint import Checkpoints, git_hash, load_params
from research.training.state import abstract, create
from research.training.step import make_step
from tests.training import toy


def begin(name="adamw", trainable=None, mesh=None, params=None):
    params = toy.params() if params is None else params
    mask = None if trainable is None else tree.select(params, trainable)
    optimizer = optim.make({"name": name}, params if mask is None else tree.split(params, mask)[0], steps=10)
    return *create(params, optimizer, rng=jax.random.key(3), trainable=mask, mesh=mesh), optimizer


def plain(state):
    """Everything as numpy, random key included."""
    return jax.tree.map(np.asarray, state.replace(rng=jax.random.key_data(state.rng)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, states by step): a run that saved after each of four steps, keeping two and the best."""
    folder = tmp_path_factory.mktemp("run")
    state, frozen, optimizer = begin()
    step = make_step(toy.loss, optimizer)
    states = {}
    with Checkpoints(folder, keep=2, config={"model": {"width": 4}}) as saver:
        for n, loss in enumerate([3.0, 1.0, 2.0, 4.0], 1):
            state, _ = step(state, frozen, toy.batch(n))
            states[n] = plain(state)
            saver.save(state, data={"step": n}, metrics={"loss": loss}, progress={"waited": n})
    return folder, states


def copy_of(run, tmp_path):
    import shutil

    shutil.copytree(run[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_gives_back_the_state_bit_for_bit(run):
    folder, states = run
    restored = Checkpoints(folder).restore(begin()[0])
    chex.assert_trees_all_equal(plain(restored.state), states[4])
    meta = restored.meta
    assert (meta["step"], meta["data"], meta["progress"]) == (4, {"step": 4}, {"waited": 4})
    assert (meta["config"], meta["git"], meta["format"]) == ({"model": {"width": 4}}, git_hash(), 1)


def test_keeps_the_newest_and_the_best(run):
    saver = Checkpoints(run[0])
    assert saver.steps() == [2, 3, 4]
    assert saver.best() == 2
    assert Checkpoints(run[0], higher_is_better=True).best() == 4
    chex.assert_trees_all_equal(plain(saver.restore(begin()[0], step=2).state), run[1][2])
    with pytest.raises(ValueError, match=r"no checkpoint of step 1 .*00000002"):
        saver.restore(begin()[0], step=1)


def damage(path, how):
    """One of the ways in which a checkpoint can be broken."""
    biggest = max((p for p in (path / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    if how == "truncated":
        biggest.write_bytes(biggest.read_bytes()[:-7])
    elif how == "changed":
        content = bytearray(biggest.read_bytes())
        content[len(content) // 2] ^= 1
        biggest.write_bytes(content)
    elif how == "missing":
        biggest.unlink()
    elif how == "unfinished":
        (path / "manifest.json").unlink()
    else:
        (path / "manifest.json").write_text('{"state')


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "bytes"),
        ("changed", "checksum"),
        ("missing", "is missing"),
        ("unfinished", "not written to the end"),
        ("manifest", "manifest is damaged"),
    ],
)
def test_a_broken_checkpoint_is_refused_and_the_one_before_used(run, tmp_path, how, message):
    folder, said = copy_of(run, tmp_path), []
    damage(folder / "00000004", how)
    restored = Checkpoints(folder, say=said.append).restore(begin()[0])
    chex.assert_trees_all_equal(plain(restored.state), run[1][3])
    assert len(said) == 1
    assert "00000004 is refused" in said[0]
    assert message in said[0]


def test_a_save_that_was_killed_leaves_no_trace_in_the_next(run, tmp_path):
    folder = copy_of(run, tmp_path)
    damage(folder / "00000004", "unfinished")
    (folder / "00000005.orbax-checkpoint-tmp").mkdir()
    state, frozen, optimizer = begin()
    with Checkpoints(folder, say=lambda _: None) as saver:
        state = saver.restore(state).state
        state, _ = make_step(toy.loss, optimizer)(state, frozen, toy.batch(4))
        saver.save(state, metrics={"loss": 4.0})
    chex.assert_trees_all_equal(plain(Checkpoints(folder).restore(begin()[0]).state), run[1][4])


def test_nothing_sound_is_none(tmp_path):
    assert Checkpoints(tmp_path / "new").restore(begin()[0]) is None
    with pytest.raises(ValueError, match="no sound checkpoint"):
        load_params(tmp_path / "new")


def test_another_model_is_an_error_that_lists_the_differences(run):
    params = toy.params()
    params["embed"]["tokens"]["embedding"] = params["embed"]["tokens"]["embedding"][:8]
    params["decoder"]["final_norm"] = {"scale": np.ones(4, np.float32)}
    del params["decoder"]["layers"]["00"]["mlp"]["up"]["bias"]
    with pytest.raises(ValueError) as error:
        Checkpoints(run[0]).restore(begin(params=params)[0])
    text = str(error.value)
    assert "missing ['opt_state/1/mu/decoder/final_norm/scale'" in text
    assert "unexpected ['opt_state/1/mu/decoder/layers/00/mlp/up/bias'" in text
    assert "params/embed/tokens/embedding: expected (8, 4), given (16, 4)" in text


def test_a_newer_format_is_refused(run, tmp_path):
    from research.training import checkpoint

    folder = copy_of(run, tmp_path)
    meta = json.loads((folder / "00000004/meta.json").read_text()) | {"format": 99}
    checkpoint._seal(folder / "00000004", json.dumps(meta))
    with pytest.raises(ValueError, match="format 99; this code reads up to 1"):
        Checkpoints(folder).restore(begin()[0])


@pytest.mark.parametrize("axes", [{"fsdp": 2, "tensor": 2}, {"data": 4}])
def test_restores_onto_another_mesh(run, axes):
    mesh = make_mesh(axes)
    like = begin(mesh=mesh)[0]
    restored = Checkpoints(run[0]).restore(abstract(like)).state
    chex.assert_trees_all_equal(plain(restored), run[1][4])
    same = jax.tree.map(lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim), restored, like)
    assert all(jax.tree.leaves(same))


def test_frozen_weights_are_saved_once(tmp_path):
    state, frozen, optimizer = begin(trainable="decoder/.*")
    with Checkpoints(tmp_path) as saver:
        frozen = saver.keep_frozen(frozen)
        saver.save(state)
    assert "embed" not in str(json.loads((tmp_path / "00000000/meta.json").read_text())["shapes"])
    other = jax.tree.map(lambda w: w + 1, frozen)
    chex.assert_trees_all_equal(Checkpoints(tmp_path).keep_frozen(other), frozen)
    params, _ = load_params(tmp_path)
    chex.assert_trees_all_equal(params, toy.params())
    del optimizer


def test_weights_alone_without_knowing_the_optimizer(run):
    params, meta = load_params(run[0], step=3)
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, params), run[1][3].params)
    assert meta["step"] == 3


def test_an_error_in_the_background_is_not_lost(tmp_path, monkeypatch):
    from research.training import checkpoint

    def fail(path, meta):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "_seal", fail)
    saver = Checkpoints(tmp_path)
    saver.save(begin()[0])
    with pytest.raises(RuntimeError, match="disk full"):
        saver.wait()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot make the checkpoint folder"):
        Checkpoints(tmp_path / "file" / "run")
    with pytest.raises(ValueError, match="at least 1 checkpoint, given 0"):
        Checkpoints(tmp_path, keep=0)
