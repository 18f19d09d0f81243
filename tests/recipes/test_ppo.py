"""PPO on models: what it learns from is what a plain loop makes of the answers, and it learns."""

from dataclasses import replace
from typing import NamedTuple

import chex
import jax
import numpy as np
import pytest

from research import weights
from research.core import mesh as meshes
from research.core import tree
from research.models import Model
from research.recipes.assemble import heads
from research.recipes.ppo import PPO, ActorCritic, ppo_loss, worth
from research.recipes.ppo_run import Progress, Schedule, Trainer, run
from research.recipes.rollouts import Writer, rows
from research.training import log, optim
from research.training import state as states
from research.training.checkpoint import Checkpoints
from research.training.step import make_step
from tests.models.conftest import tiny
from tests.parity.zoo import quick_jit

LORA = {"method": "lora", "rank": 2, "alpha": 4.0, "name": "second"}
FIRST = {"method": "lora", "rank": 2, "alpha": 4.0, "name": "first"}
EOS, WANTED = 2, 7
STOPS = (EOS, *range(41, 61))  # so many, that answers differ in length
PROMPTS = [[5, 9, 11], [4], [8, 8, 3, 20, 31], [17, 6], [40, 41], [12, 13, 14, 15], [3], [50, 7]]


class Letters:
    """One letter for each id."""

    vocab_size, bos_id, eos_id = 61, 1, EOS

    def decode(self, ids):
        return "".join(chr(60 + i) for i in ids)


def wanted(prompts, answers):
    return [float(answer.count(chr(60 + WANTED))) for answer in answers]


class World(NamedTuple):
    """A policy with adapters that are not zero, over a base that has adapters of its own."""

    model: Model
    pair: ActorCritic
    params: dict
    writer: Writer


def noisy(params, learns, scale=0.3):
    noise = np.random.default_rng(1)
    return jax.tree.map(
        lambda w, on: w + scale * noise.normal(size=w.shape).astype(np.float32) if on else w, params, learns
    )


@pytest.fixture(scope="module", params=["llama", "t5"])
def world(request):
    model, base = tiny(request.param)
    for i, recipe in enumerate((FIRST, LORA)):
        base = weights.attach(base, recipe, jax.random.key(i))
        base = noisy(base, weights.trainable(base, recipe))
    pair = ActorCritic(model, adapter="second", chunk=4)
    params = pair.begin(base)
    params["value"] = noisy(params["value"], jax.tree.map(lambda _: True, params["value"]))
    return World(model, pair, params, Writer(model, Letters(), 5, 6, STOPS))


def trainer_of(world, params, learns, *, mesh=None, rate=1e-2, **changes):
    ppo = PPO(temperature=0.7)
    optimizer = optim.make(
        {"learning_rate": rate, "schedule": "constant", "clip": 1.0}, tree.split(params, learns)[0], steps=100
    )
    begin, frozen = states.create(
        params, optimizer, rng=jax.random.key(0), trainable=learns, mesh=mesh, heads=heads(world.model.config)
    )
    step = make_step(ppo_loss(world.pair, ppo), optimizer, mesh=mesh)
    plan = Schedule(**{"iterations": 2, "rollouts": 8, "minibatch": 4, "epochs": 2} | changes)
    return Trainer(world.pair, ppo, world.writer, wanted, PROMPTS, step, plan, mesh=mesh), begin, frozen


def learns_of(world):
    return world.pair.learns(world.params, weights.trainable(world.params["policy"], LORA))


def by_hand(logprobs, reference, values, mask, scores, beta, gamma, trace):
    """Advantages, whitened, and returns, one answer and one token at a time."""
    advantages, returns = np.zeros(mask.shape), np.zeros(mask.shape)
    for b in range(len(mask)):
        at = np.flatnonzero(mask[b])
        following, ahead = 0.0, 0.0
        for t in at[::-1]:
            reward = -beta * (float(logprobs[b, t]) - float(reference[b, t])) + (scores[b] if t == at[-1] else 0)
            ahead = reward + gamma * following - values[b, t] + gamma * trace * ahead
            following = float(values[b, t])
            advantages[b, t], returns[b, t] = ahead, ahead + values[b, t]
    on = mask > 0
    return np.where(on, (advantages - advantages[on].mean()) / advantages[on].std(), 0), returns


def test_an_iteration_learns_from_what_a_plain_loop_makes_of_the_answers(world):
    trainer, state, frozen = trainer_of(world, world.params, learns_of(world))
    rollout = trainer.rollout(world.params, 3)
    logprobs, values, reference = trainer.read(world.params, rollout.batch)
    mask = rollout.batch["loss_mask"]
    assert mask.sum() == rollout.lengths.sum() and len(set(rollout.lengths.tolist())) > 1
    sampled = np.concatenate([row[:n] for row, n in zip(rollout.sampled, rollout.lengths, strict=True)])
    np.testing.assert_allclose(logprobs[mask > 0], sampled, atol=1e-4)
    scores = np.array(wanted(rollout.prompts, rollout.answers), np.float32)
    said, told = worth(PPO(discount=0.9, trace=0.8), scores, logprobs, reference, values, mask, 0.3)
    advantages, returns = by_hand(logprobs, reference, values, mask, scores, 0.3, 0.9, 0.8)
    np.testing.assert_allclose(said["advantages"], advantages, atol=1e-4)
    np.testing.assert_allclose(said["returns"], returns, atol=1e-4)
    gap = np.where(mask > 0, logprobs - reference, 0).sum(1).mean()
    assert abs(gap) > 0.1
    np.testing.assert_allclose(told["kl"], gap, rtol=1e-4)
    np.testing.assert_allclose(told["reward"], scores.mean() - 0.3 * gap, rtol=1e-4)
    _, facts, _ = trainer.iterate(state, frozen, 3, 0.3)
    assert facts["first_ratio"] == 1.0 and facts["ratio"] != 1.0 and facts["updates"] == 4
    assert facts["sampler_gap"] < 1e-4 and facts["entropy"] > 0 and facts["length"] == rollout.lengths.mean()


def test_the_reference_is_what_lies_under_the_adapter_and_no_copy(world):
    assert set(world.params) == {"policy", "value"}
    base = weights.strip(world.params["policy"], "second")
    kept = {id(leaf) for leaf in jax.tree.leaves(world.params)}
    assert all(id(leaf) in kept for leaf in jax.tree.leaves(base)) and weights.names(base) == ("first",)
    batch = rows(world.model, PROMPTS[:4], [[9, 5, EOS], [6], [7, 7], [30, EOS]], 5, 6)
    found = quick_jit(lambda p, b: world.pair.refer(p, b))(world.params, batch)
    expected, _, _ = quick_jit(lambda p, b: world.pair.read(p, b))({**world.params, "policy": base}, batch)
    np.testing.assert_allclose(np.asarray(found)[batch["loss_mask"] > 0], np.asarray(expected)[batch["loss_mask"] > 0])


def test_padding_and_the_company_of_other_prompts_change_nothing(world):
    answers = [[9, 5, EOS], [6], [7, 7, 7, 7, 7, 7], [30, EOS]]
    ppo, rng = PPO(entropy_weight=0.1), np.random.default_rng(0)
    loss_fn = ppo_loss(world.pair, ppo)
    chosen, frozen = tree.split(world.params, learns_of(world))
    grade = quick_jit(jax.value_and_grad(lambda c, b: loss_fn(tree.merge(c, frozen), b, None), has_aux=True))
    noise = [rng.normal(size=(4, len(a))).astype(np.float32) for a in answers]

    def batch_of(some, prompt_length, new_tokens):
        batch = rows(world.model, [PROMPTS[i] for i in some], [answers[i] for i in some], prompt_length, new_tokens)
        for name, k in (("old_logprobs", 0), ("old_values", 1), ("advantages", 2), ("returns", 3)):
            batch[name] = np.full(batch["targets"].shape, np.nan, np.float32)  # nothing reads what is masked
            for row, i in enumerate(some):
                batch[name][row, batch["loss_mask"][row] > 0] = noise[i][k] - (2.0 if k == 0 else 0.0)
        return batch

    (loss, aux), grads = grade(chosen, batch_of(range(4), 5, 6))
    wide = grade(chosen, batch_of(range(4), 9, 11))
    chex.assert_trees_all_close(wide, ((loss, aux), grads), rtol=1e-3, atol=1e-4)
    assert all(np.asarray(g).any() for g in jax.tree.leaves(grads)) and np.isfinite(loss)


def test_a_reward_rises_with_all_weights_and_a_trunk_for_values():
    model, base = tiny("llama")
    pair = ActorCritic(model, "copy", chunk=4)
    params = pair.begin(base, trunk="own")
    made = World(model, pair, params, Writer(model, Letters(), 5, 6, STOPS))
    trainer, state, frozen = trainer_of(
        made, params, pair.learns(params), rate=1e-2, iterations=10, kl_coefficient=0.01, kl_target=1.0
    )
    seen = []
    state, ended = run(trainer, state, frozen, show=lambda n, facts, rollout: seen.append(facts))
    scores = [facts["score"] for facts in seen]
    assert np.mean(scores[-3:]) > np.mean(scores[:3]) + 1, scores
    assert ended.stopped == "finished" and ended.iteration == 10
    assert [f["kl_coefficient"] for f in seen] != [0.01] * 10 and seen[0]["kl"] == 0 and seen[-1]["kl"] > 0.5
    first, last = (whole["reference"] for whole in (params, tree.merge(state.params, frozen)))
    chex.assert_trees_all_equal(first, last)


@pytest.mark.parametrize("world", ["llama"], indirect=True)
def test_a_run_goes_on_where_it_was_and_stops_when_told(world, tmp_path):
    trainer, _, _ = trainer_of(world, world.params, learns_of(world), kl_target=1.0, evaluate_every=1)

    def go(folder, iterations, stop=None):
        _, state, frozen = trainer_of(world, world.params, learns_of(world))
        plan = replace(trainer.schedule, iterations=iterations, stop=stop)
        with log.Logger(folder) as logger, Checkpoints(folder / "checkpoints", say=lambda _: None) as checkpoints:
            return run(
                replace(trainer, schedule=plan),
                state,
                frozen,
                checkpoints=checkpoints,
                logger=logger,
                evaluate=lambda params, iteration: {"score": float(iteration)},
            )

    expected, end = go(tmp_path / "whole", 3)
    assert end == Progress(3, end.kl_coefficient, "finished") and end.kl_coefficient != 0.05
    _, between = go(tmp_path / "parts", 3, stop={"score": 2})
    assert between.stopped == "score reached 2" and between.iteration == 2
    assert go(tmp_path / "parts", 3, stop={"score": 2})[1] == between
    resumed, after = go(tmp_path / "parts", 3)
    assert after == end
    chex.assert_trees_all_equal(resumed.params, expected.params)
    assert log.read(tmp_path / "parts" / "metrics.jsonl") == log.read(tmp_path / "whole" / "metrics.jsonl")


@pytest.mark.parametrize("world", ["llama"], indirect=True)
def test_updates_end_where_the_policy_has_gone_far_enough(world):
    trainer, state, frozen = trainer_of(world, world.params, learns_of(world), stop_kl=1e-6)
    _, facts, _ = trainer.iterate(state, frozen, 0, 0.1)
    assert facts["updates"] == 2 and facts["step_kl"] > 1e-6
    assert trainer.next_coefficient(0.1, 5.0) == 0.1


def test_a_mesh_changes_nothing():
    model, base = tiny("llama", vocab_size=64)
    pair = ActorCritic(model, "copy", chunk=4)
    params = pair.begin(base)
    made = World(model, pair, params, Writer(model, Letters(), 5, 6, STOPS))
    found = []
    for mesh in (None, meshes.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})):
        trainer, state, frozen = trainer_of(made, params, pair.learns(params), mesh=mesh, epochs=1, rate=1e-3)
        state, facts, rollout = trainer.iterate(state, frozen, 0, 0.1)
        found.append((facts, rollout.answers))
    assert found[0][1] == found[1][1]
    chex.assert_trees_all_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-4)
