"""Loss scaling: the schedule against a plain loop and torch, the step against float32, overflow at a known step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core import mesh as meshes
from research.core import tree
from research.models import build
from research.recipes.pretrain import language_model_loss
from research.training import loss_scale, optim
from research.training.checkpoint import Checkpoints
from research.training.fit import Diverged, fit
from research.training.log import Logger, read
from research.training.state import create
from research.training.step import make_step
from tests.models.conftest import tiny_config
from tests.training import toy

ADAMW = {"name": "adamw", "learning_rate": 0.02, "schedule": "linear", "steps": 10}
OPTIMIZER = optim.make(ADAMW, toy.params())
LOUD = 2.0**18  # a weight of the loss that takes gradients at a scale of 2^16 out of float16's range


def half_loss(weights, batch, rng):
    """`toy.loss` whose gradient goes through float16, times `loud`, a factor of each row."""
    del rng
    x = toy.forward(weights, batch["tokens"]).astype(jnp.float16).astype(jnp.float32)
    loud = batch["loud"][:, None] if "loud" in batch else 1.0
    total = jnp.sum(jnp.mean((x - 1.0) ** 2, axis=-1) * batch["loss_mask"] * loud)
    return total, {"weight": batch["loss_mask"].sum()}


class Source:
    """Batches of the toy model; at the given steps, counted from 0, one row is louder than float16 can take."""

    def __init__(self, loud=(), rows=4, by=LOUD):
        self.loud, self.rows, self.by = loud, rows, by

    def batch(self, step):
        made = toy.batch(step, rows=self.rows)
        made["loud"] = np.ones(self.rows, np.float32)
        made["loud"][0] = self.by if step in self.loud else 1.0
        return made


def begin(initial=2.0**16, growth_interval=3, floor=1.0, **rest):
    return create(
        toy.params(),
        rest.pop("optimizer", OPTIMIZER),
        rng=jax.random.key(3),
        loss_scale=loss_scale.begin(initial, growth_interval, floor),
        **rest,
    )


def loop(finite, scale, interval, floor):
    """The schedule, step by step: scales used, which steps were skipped, and where the run stops (None: nowhere)."""
    scales, skipped, good = [], [], 0
    for n, fine in enumerate(finite):
        scales.append(scale)
        skipped.append(not fine)
        if fine:
            good += 1
            if good == interval:
                scale, good = scale * 2, 0
        else:
            if not interval or scale / 2 < floor:
                return scales, skipped, n
            scale, good = scale / 2, 0
    return scales, skipped, None


@pytest.mark.parametrize("seed", range(4))
def test_the_schedule_is_the_loop(seed):
    rng = np.random.default_rng(seed)
    finite = rng.random(60) < 0.8
    interval, floor = int(rng.integers(0, 5)), 2.0**13
    state, after = loss_scale.begin(2.0**16, interval, floor), jax.jit(lambda s, f: s.after(f))
    scales, skipped, stop = loop(finite, 2.0**16, interval, floor)
    for n, scale in enumerate(scales):
        assert float(state.scale) == scale
        assert bool(state.may_skip()) == (interval > 0 and scale / 2 >= floor)
        state = after(state, jnp.bool_(finite[n]))
    assert int(state.skipped) == sum(skipped) - (stop is not None)


@pytest.mark.oracle
def test_the_schedule_is_that_of_torch():
    torch = pytest.importorskip("torch")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=3)
    weight = torch.nn.Parameter(torch.ones(1))
    sgd = torch.optim.SGD([weight], lr=0.0)
    ours = loss_scale.begin(2.0**16, 3, 2.0**-30)
    for fine in np.random.default_rng(0).random(40) < 0.7:
        assert float(ours.scale) == scaler.get_scale()
        scaler.scale(weight.sum() * (1.0 if fine else float("inf"))).backward()
        scaler.step(sgd)
        scaler.update()
        sgd.zero_grad()
        ours = ours.after(jnp.bool_(fine))


def test_the_scale_stays_finite_where_nothing_ever_overflows():
    state = loss_scale.begin(2.0**126, 1, 1.0)
    for _ in range(4):
        state = state.after(jnp.bool_(True))
    assert float(state.scale) == 2.0**127


@pytest.mark.parametrize("accumulate", [1, 2])
def test_without_overflow_the_update_is_that_of_float32(accumulate):
    batch = toy.batch(rows=4)
    batch["loss_mask"][1::2] = 0.0  # with two micro-batches, the second has no target at all
    plain, _ = create(toy.params(), OPTIMIZER, rng=jax.random.key(3))
    scaled, _ = begin()
    one, other = make_step(toy.quiet_loss, OPTIMIZER), make_step(toy.quiet_loss, OPTIMIZER, accumulate=accumulate)
    for _ in range(3):
        plain, m1 = one(plain, None, batch)
        scaled, m2 = other(scaled, None, batch)
    chex.assert_trees_all_close(plain.params, scaled.params, atol=1e-6)
    chex.assert_trees_all_close(m1, {name: m2[name] for name in m1}, rtol=1e-5)
    assert (float(m2["loss_scale"]), int(m2["skipped"]), int(m2["skipped_steps"])) == (2.0**16, 0, 0)
    assert (float(scaled.loss_scale.scale), int(scaled.loss_scale.good)) == (2.0**17, 0)


def test_small_gradients_survive_float16_only_when_scaled():
    def faint(weights, batch, rng):
        total, aux = half_loss(weights, batch, rng)
        return 1e-7 * total, aux

    batch = toy.batch()
    norms = {}
    for name, initial in (("scaled", 2.0**16), ("unscaled", 1.0)):
        state, _ = begin(initial)
        _, metrics = make_step(faint, OPTIMIZER)(state, None, batch)
        norms[name] = float(metrics["grad_norm"])
    exact, _ = create(toy.params(), OPTIMIZER, rng=jax.random.key(3))
    want = 1e-7 * float(make_step(toy.quiet_loss, OPTIMIZER)(exact, None, batch)[1]["grad_norm"])
    np.testing.assert_allclose(norms["scaled"], want, rtol=2e-3)
    assert norms["unscaled"] < 0.7 * want


def weights(state):
    return jax.tree.map(np.asarray, (state.params, state.opt_state))


@pytest.mark.parametrize("mesh", [None, {"data": 2, "fsdp": 4}], ids=str)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_overflow_skips_the_update_and_halves_the_scale(mesh, accumulate):
    """The loud row is on one device of eight, in one micro-batch of two."""
    mesh = None if mesh is None else meshes.make_mesh(mesh)
    state, _ = begin(mesh=mesh)
    step, source = make_step(half_loss, OPTIMIZER, accumulate=accumulate, mesh=mesh), Source((1,), rows=16)
    told = []
    for n in range(5):
        before = weights(state)
        state, metrics = step(state, None, source.batch(n))
        told.append({k: float(metrics[k]) for k in ("loss_scale", "skipped", "skipped_steps", "learning_rate")})
        same = jax.tree.map(np.array_equal, before, weights(state))
        assert all(jax.tree.leaves(same)) == (n == 1)
    assert np.isfinite(jax.tree.leaves(weights(state))[0]).all()
    fine = [True, False, True, True, True]
    scales, skipped, _ = loop(fine, 2.0**16, 3, 1.0)
    assert [t["loss_scale"] for t in told] == scales
    assert [t["skipped"] for t in told] == skipped and [t["skipped_steps"] for t in told] == [0, 1, 1, 1, 1]
    # The schedule goes on where it was: a skipped update does not count.
    rates = [float(OPTIMIZER.learning_rate(n)) for n in (0, 1, 1, 2, 3)]
    np.testing.assert_allclose([t["learning_rate"] for t in told], rates, rtol=1e-6)
    assert float(state.loss_scale.scale) == 2.0**16 and int(state.step) == 5


def test_only_the_adapters_scale_and_skip():
    mask = tree.select(toy.params(), "decoder/layers/mlp/up/.*")
    optimizer = optim.make(ADAMW, tree.split(toy.params(), mask)[0])
    state, frozen = begin(trainable=mask, optimizer=optimizer)
    step, source, start = make_step(half_loss, optimizer), Source((0,)), weights(state)
    state, metrics = step(state, frozen, source.batch(0))
    chex.assert_trees_all_equal(start, weights(state))
    assert metrics["skipped"] and not np.isfinite(metrics["grad_norm"])
    state, metrics = step(state, frozen, source.batch(1))
    assert not metrics["skipped"] and np.isfinite(metrics["grad_norm"])
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), start[0], weights(state)[0])
    assert jax.tree.leaves(moved) == [True, True]


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_float16_gradients_of_a_model_are_nearer_to_float32_than_bfloat16s(family):
    """Eight times finer, where the scale keeps them in range: the relative error of all gradients and of the loss."""
    config, rng = tiny_config(family, vocab_size=64, n_layers=2), np.random.default_rng(0)
    tokens = rng.integers(3, 64, (4, 12)).astype(np.int32)
    batch = {"tokens": tokens, "targets": np.roll(tokens, -1, 1), "loss_mask": np.ones((4, 12), np.float32)}
    if config.kind == "encoder_decoder":
        batch["inputs"] = tokens[:, ::-1].copy()
    sgd, grads, losses = {"name": "sgd", "learning_rate": 1.0, "schedule": "constant", "clip": None}, {}, {}
    params = jax.jit(build(config).init)(jax.random.key(0))
    for policy in ("f32", "bf16", "f16"):
        model, optimizer = build(config, policy=policy), optim.make(sgd, params)
        scale = loss_scale.make({"initial": 1024.0} if policy == "f16" else {}, model.policy, params)
        state, _ = create(params, optimizer, rng=jax.random.key(1), loss_scale=scale)
        state, metrics = make_step(language_model_loss(model, chunk=5), optimizer)(state, None, batch)
        moved = jax.tree.map(lambda a, b: np.asarray(a - b).ravel(), params, state.params)
        grads[policy], losses[policy] = np.concatenate(jax.tree.leaves(moved)), float(metrics["loss"])
    error = {p: np.linalg.norm(g - grads["f32"]) / np.linalg.norm(grads["f32"]) for p, g in grads.items()}
    assert 0 < error["f16"] < error["bf16"] / 4 and error["f16"] < 0.02, error
    np.testing.assert_allclose(losses["f16"], losses["f32"], rtol=1e-3)


def train(folder, **options):
    source, floor = options.pop("source", Source((1, 2, 5))), options.pop("floor", 1.0)
    with Logger(folder) as logger, Checkpoints(folder / "checkpoints", say=lambda _: None) as saver:
        options = {"steps": 8, "progress": False, "save_every": 2, "log_every": 1} | options
        step = make_step(half_loss, OPTIMIZER)
        return fit(*begin(floor=floor), step, source, logger=logger, checkpoints=saver, **options)


def numbers(folder):
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in read(folder / "metrics.jsonl")]


def test_a_run_with_overflows_goes_on_bit_for_bit(tmp_path):
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", steps=3)  # the scale has been halved twice, and no good step counted since
    parts = train(tmp_path / "parts")
    chex.assert_trees_all_equal(weights(whole.state), weights(parts.state))
    chex.assert_trees_all_equal(whole.state.loss_scale, parts.state.loss_scale)
    logged = numbers(tmp_path / "whole")
    assert logged == numbers(tmp_path / "parts")
    scales, skipped, _ = loop([n not in (1, 2, 5) for n in range(8)], 2.0**16, 3, 1.0)
    assert [line["loss_scale"] for line in logged] == scales and [line["skipped"] for line in logged] == skipped
    assert logged[1]["grad_norm"] is None and logged[1]["loss"] is not None


def test_at_its_floor_the_run_stops_and_names_the_step(tmp_path):
    with pytest.raises(Diverged, match=r"grad_norm is (inf|nan) at step 3 \(.*loss scale 32768, which may not be"):
        train(tmp_path, floor=2.0**15, source=Source((1, 2), by=2.0**30))
    # A checkpoint of the step before it is intact.
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()) == [2]
    with pytest.raises(Diverged, match=r"loss is nan at step 2 \(.*loss scale 65536, which may not be halved"):
        train(tmp_path / "loss", floor=2.0**16, source=Source((1,), by=np.nan))


def test_moments_keep_their_type_in_pure_bf16():
    params = jax.tree.map(lambda w: w.astype(jnp.bfloat16), toy.params())
    state, _ = create(params, OPTIMIZER, rng=jax.random.key(0))
    types = jax.tree.map(lambda x: x.dtype, (state.params, state.opt_state))
    after, _ = make_step(toy.quiet_loss, OPTIMIZER, accumulate=2)(state, None, toy.batch())
    assert jax.tree.map(lambda x: x.dtype, (after.params, after.opt_state)) == types
