"""Bad input of PPO: one line that names the answer or the setting; a reward that fails loses nothing."""

import jax
import numpy as np
import pytest

from research.models import build, preset
from research.recipes.ppo import PPO, ActorCritic, ppo_loss
from research.recipes.ppo_run import Schedule, Trainer, _reached, run
from research.recipes.rollouts import Rollout, Writer, scored
from research.training import optim, state
from research.training.checkpoint import Checkpoints
from research.training.step import make_step

TINY = preset("gpt2").replace(vocab_size=50, d_model=16, n_layers=1, n_heads=2, d_ff=32, max_length=16)
MODEL = build(TINY)


class Letters:
    bos_id = 1

    def decode(self, ids):
        return "".join(chr(60 + i) for i in ids)


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0))


def answered(reward):
    none = np.zeros(3)
    return scored(reward, Rollout(["why", "how", "who"], ["a", "b", "c"], {}, none, none, none))


def fails_on_b(prompts, answers):
    if "b" in answers:
        raise KeyError("no such word")
    return [0.0] * len(answers)


def only_together(prompts, answers):
    if len(answers) > 1:
        raise RuntimeError("too many")
    return [0.0]


CASES = [
    (lambda p: answered(fails_on_b), r"raised KeyError: 'no such word' on answer 1, 'b' to 'how'"),
    (lambda p: answered(only_together), r"raised RuntimeError: too many on all 3 answers together"),
    (lambda p: answered(lambda q, a: [0.0, float("nan"), 1.0]), r"gave nan for answer 1, 'b' to 'how'"),
    (lambda p: answered(lambda q, a: [0.0, 1.0, np.inf]), r"gave inf for answer 2, 'c' to 'who'"),
    (
        lambda p: answered(lambda q, a: [0.0]),
        r"scores of shape \(1,\) for 3 answers; .* without one is answer 1",
    ),
    (lambda p: answered(lambda q, a: [0.0] * 4), r"scores of shape \(4,\) for 3 answers"),
    (lambda p: answered(lambda q, a: ["good", "bad", "ugly"]), r"gave \['good', 'bad', 'ugly'\]; expected one number"),
    (lambda p: answered(lambda q, a: None), r"scores of shape .* for 3 answers"),
    (lambda p: Writer(MODEL, Letters(), 12, 6, ()), r"12 tokens with 6 new ones do not fit the model's max_length 16"),
    (lambda p: Writer(MODEL, Letters(), 4, 6, ()).check([[1, 2], []]), r"prompt 1 has 0 tokens; expected 1 to"),
    (lambda p: Writer(MODEL, Letters(), 4, 6, ()).check([[1] * 5]), r"prompt 0 has 5 tokens; expected 1 to"),
    (lambda p: Writer(MODEL, Letters(), 4, 6, ()).check([]), r"no prompts"),
    (lambda p: ActorCritic(MODEL, "copied"), r"unknown reference 'copied', did you mean 'copy'"),
    (lambda p: ActorCritic(build(TINY.replace(head="scalar"))), r"head 'lm'; this model is .* with head 'scalar'"),
    (lambda p: ActorCritic(MODEL, "copy").begin(p, trunk="mine"), r"unknown trunk 'mine'.*\['own', 'shared'\]"),
    (lambda p: ActorCritic(MODEL, "copy").begin(p, reference={"head": p["embed"]}), r"the reference does not fit"),
    (lambda p: ActorCritic(MODEL).begin(p, trunk="own"), r"no adapter that could be taken off"),
    (lambda p: PPO(temperature=0.0), r"temperature must be above 0, given 0.0"),
    (lambda p: PPO(entropy_weight=-1.0), r"entropy_weight must be 0 or above"),
    (lambda p: Schedule(5, rollouts=10, minibatch=4), r"10 rollouts do not split into minibatches of 4"),
    (lambda p: Schedule(0), r"iterations must be at least 1, given 0"),
    (lambda p: Schedule(5, kl_target=-1.0), r"kl_target must be 0 or above"),
    (lambda p: _reached({"scores": 1.0}, {"score": 0.5}), r"no metric 'scores' to stop at, did you mean 'score'"),
]


@pytest.mark.parametrize(("call", "message"), CASES, ids=lambda case: case if isinstance(case, str) else "")
def test_refused_in_one_line(call, message, params):
    with pytest.raises(ValueError, match=message) as caught:
        call(params)
    assert "\n" not in str(caught.value)


def test_what_was_learned_before_a_reward_fails_is_kept(params, tmp_path):
    pair, ppo = ActorCritic(MODEL, "copy"), PPO()
    weights = pair.begin(params)
    learns = pair.learns(weights)
    optimizer = optim.make({"learning_rate": 1e-3, "schedule": "constant"}, weights, steps=9)
    step = make_step(ppo_loss(pair, ppo), optimizer)
    calls = []

    def third_time_nan(prompts, answers):
        calls.append(answers)
        return [float("nan") if len(calls) == 3 else 1.0] * len(answers)

    def go():
        begin, frozen = state.create(weights, optimizer, rng=jax.random.key(1), trainable=learns)
        plan = Schedule(4, rollouts=2, minibatch=2, epochs=1, save_every=0)
        trainer = Trainer(pair, ppo, Writer(MODEL, Letters(), 4, 3, ()), third_time_nan, [[1, 5], [2]], step, plan)
        with Checkpoints(tmp_path, say=lambda _: None) as checkpoints:
            return run(trainer, begin, frozen, checkpoints=checkpoints)

    with pytest.raises(ValueError, match="gave nan for answer 0"):
        go()
    _, ended = go()
    assert ended.iteration == 4 and len(calls) == 5 and calls[2] == calls[3], "the rollout that failed comes again"
