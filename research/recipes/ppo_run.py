"""The iterations of PPO: rollout, scores, epochs of minibatches, KL controller; one flat loop that can be killed.

Everything an iteration needs follows from the state of training, its number and the KL coefficient, which a checkpoint
holds: started again, the run gives the same numbers, bit for bit.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from research.core import mesh as meshes
from research.core import tree
from research.core.names import meant
from research.core.types import Array
from research.data.permutation import mixed_key, permute
from research.objectives import adaptive_kl
from research.recipes.ppo import PPO, ActorCritic, ppo_loss, worth
from research.recipes.rollouts import Reward, Rollout, Writer, scored
from research.training import optim
from research.training.checkpoint import Checkpoints
from research.training.fit import Diverged
from research.training.log import Logger
from research.training.state import State, create
from research.training.step import Step, make_step


@dataclass(frozen=True)
class Schedule:
    """How much of what.

    Attributes:
      iterations: rollouts in all. rollouts: answers in each. minibatch: of them in one update. epochs: over them.
      stop_kl: an iteration's updates end when the policy is further (k3, nats per token) from the one that sampled; 0:
        never. kl_coefficient: β at first. kl_target: nats of a whole answer that β is steered to; 0: β is fixed.
      kl_gain: K of the controller, at each iteration.
      evaluate_every, save_every: iterations; 0: only at the end. stop: {metric of the evaluation: number}; the run ends
        when one of them is reached.
    """

    iterations: int
    rollouts: int = 64
    minibatch: int = 16
    epochs: int = 4
    stop_kl: float = 0.0
    kl_coefficient: float = 0.05
    kl_target: float = 0.0
    kl_gain: float = 0.1
    evaluate_every: int = 0
    save_every: int = 1
    stop: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for name in ("iterations", "rollouts", "minibatch", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, given {getattr(self, name)}")
        if self.rollouts % self.minibatch:
            raise ValueError(f"{self.rollouts} rollouts do not split into minibatches of {self.minibatch}")
        for name in ("stop_kl", "kl_coefficient", "kl_target"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or above, given {getattr(self, name)}")

    @property
    def updates(self) -> int:
        """The most steps of the optimizer in the whole run."""
        return self.iterations * self.epochs * self.rollouts // self.minibatch


Evaluate = Callable[[Any, int], Mapping[str, float]]
"""(all weights, iteration) -> metrics, such as the mean score of fixed prompts."""


def start(
    pair: ActorCritic,
    ppo: PPO,
    schedule: Schedule,
    params: Any,
    learns: Any,
    rule: Mapping[str, Any],
    key: Array,
) -> tuple[Step, State, Any]:
    """(step, state, frozen) of a run: `rule` is what `training.optim.make` takes, `learns` what `ActorCritic` gives."""
    optimizer = optim.make(dict(rule), tree.split(params, learns)[0], steps=schedule.updates)
    state, frozen = create(params, optimizer, rng=key, trainable=learns)
    return make_step(ppo_loss(pair, ppo), optimizer), state, frozen


@dataclass(frozen=True)
class Trainer:
    """The parts of a run. `prompts` are token ids; `step` is that of `start`."""

    pair: ActorCritic
    ppo: PPO
    writer: Writer
    reward: Reward
    prompts: Sequence[Sequence[int]]
    step: Step
    schedule: Schedule
    seed: int = 0
    mesh: Mesh | None = None

    def chosen(self, iteration: int) -> list[Sequence[int]]:
        """The prompts of an iteration: all of them in turn, each time round in another order."""
        n = len(self.prompts)
        places = range(iteration * self.schedule.rollouts, (iteration + 1) * self.schedule.rollouts)
        order = [int(permute(at % n, n, mixed_key(self.seed, at // n))) for at in places]
        return [self.prompts[i] for i in order]

    def rollout(self, params: Any, iteration: int) -> Rollout:
        """The answers of an iteration; the noise follows from the seed and the iteration."""
        key = jax.random.fold_in(jax.random.key(self.seed), iteration)
        return self.writer(params["policy"], self.chosen(iteration), key, temperature=self.ppo.temperature)

    def read(self, params: Any, batch: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """log π, V and log π_ref [B, T] by the trainer's own forward pass, a minibatch at a time, as updates see it."""
        found = []
        for first in range(0, len(batch["tokens"]), self.schedule.minibatch):
            part = {name: x[first : first + self.schedule.minibatch] for name, x in batch.items()}
            with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
                found.append(jax.device_get(_read(self.pair, self.ppo, params, meshes.place(part, self.mesh))))
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def iterate(
        self, state: State, frozen: Any, iteration: int, kl_coefficient: float
    ) -> tuple[State, dict[str, float], Rollout]:
        """One iteration: the state after it, what is logged, and the answers.

        Raises:
          ValueError: the reward fails (see `rollouts.scored`); nothing has been learned from the rollout then.
        """
        params = whole(state, frozen)
        rollout = self.rollout(params, iteration)
        scores = scored(self.reward, rollout)
        logprobs, values, reference = self.read(params, rollout.batch)
        del params
        mask = rollout.batch["loss_mask"]
        said, told = jax.device_get(
            _worth(self.ppo, scores, logprobs, reference, values, mask, np.float32(kl_coefficient))
        )
        facts = {
            "score": float(scores.mean()),
            "score_std": float(scores.std()),
            "length": float(rollout.lengths.mean()),
            "ended": float(rollout.ended.mean()),
            "kl_coefficient": kl_coefficient,
            "sampler_gap": _gap(rollout, logprobs),
            **{name: float(value) for name, value in told.items()},
        }
        state, learned = self.learn(state, frozen, rollout.batch | said, iteration)
        return state, facts | learned, rollout

    def learn(
        self, state: State, frozen: Any, batch: Mapping[str, np.ndarray], iteration: int
    ) -> tuple[State, dict[str, float]]:
        """Epochs of minibatches, until they are done or `stop_kl` is passed; means over the updates."""
        rows, size = self.schedule.rollouts, self.schedule.minibatch
        seen: list[dict[str, float]] = []
        for epoch in range(self.schedule.epochs):
            order = np.random.default_rng((self.seed, iteration, epoch)).permutation(rows)
            for first in range(0, rows, size):
                part = {name: x[order[first : first + size]] for name, x in batch.items()}
                state, metrics = self.step(state, frozen, part)
                seen.append({name: float(value) for name, value in jax.device_get(metrics).items()})
                _refuse_divergence(seen[-1], iteration)
                if self.schedule.stop_kl and seen[-1]["step_kl"] > self.schedule.stop_kl:
                    return state, _means(seen)
        return state, _means(seen)

    def next_coefficient(self, kl_coefficient: float, kl: float) -> float:
        """β for the next iteration."""
        if not self.schedule.kl_target:
            return kl_coefficient
        gain = self.schedule.kl_gain
        return float(adaptive_kl(kl_coefficient, kl, target=self.schedule.kl_target, gain=gain))


@dataclass(frozen=True)
class Progress:
    """What a checkpoint holds beside the state, and how a run ended: "finished" or the criterion that was reached."""

    iteration: int = 0
    kl_coefficient: float = 0.0
    stopped: str = ""


def run(
    trainer: Trainer,
    state: State,
    frozen: Any,
    *,
    checkpoints: Checkpoints | None = None,
    logger: Logger | None = None,
    evaluate: Evaluate | None = None,
    show: Callable[[int, Mapping[str, float], Rollout], None] | None = None,
) -> tuple[State, Progress]:
    """Iterates until the schedule is done or a criterion is met, going on from the newest checkpoint if there is one.

    evaluate: called before the first iteration, every `evaluate_every` and at the end. show: sees every iteration.

    Raises:
      ValueError: the reward fails; the state before that rollout has been saved. A criterion that is no metric.
      Diverged: a loss or gradient is not finite.
    """
    schedule = trainer.schedule
    trainer.writer.check(trainer.prompts)
    now = Progress(kl_coefficient=schedule.kl_coefficient)
    if checkpoints is not None:
        frozen = checkpoints.keep_frozen(frozen)
        if (restored := checkpoints.restore(state)) is not None:
            state, now = restored.state, Progress(**restored.meta["progress"])
            # A run whose schedule has grown or whose criterion is gone goes on.
            if now.iteration < schedule.iterations and now.stopped not in _in_words(schedule.stop or {}):
                now = replace(now, stopped="")
    if logger is not None:
        logger.begin(now.iteration)

    def save() -> None:
        if checkpoints is not None:
            checkpoints.save(state, progress=vars(now))

    def measured(done: bool) -> Progress:
        values = evaluate(whole(state, frozen), now.iteration) if evaluate is not None else {}
        if logger is not None and values:
            logger.write(now.iteration, values, split="held_out")
        stopped = _reached(schedule.stop or {}, values) or ("finished" if done else "")
        return replace(now, stopped=stopped)

    if now.iteration == 0:
        now = measured(False)
    while not now.stopped:
        n = now.iteration + 1
        try:
            state, facts, rollout = trainer.iterate(state, frozen, now.iteration, now.kl_coefficient)
        except ValueError:
            save()
            if checkpoints is not None:
                checkpoints.wait()
            raise
        now = Progress(n, trainer.next_coefficient(now.kl_coefficient, facts["kl"]))
        if logger is not None:
            logger.write(n, facts)
        if show is not None:
            show(n, facts, rollout)
        done = n == schedule.iterations
        if done or (schedule.evaluate_every and n % schedule.evaluate_every == 0):
            now = measured(done)
        if now.stopped or (schedule.save_every and n % schedule.save_every == 0):
            save()
    if checkpoints is not None:
        checkpoints.wait()
    return state, now


def whole(state: State, frozen: Any) -> Any:
    """All weights of a state."""
    return state.params if frozen is None else tree.merge(state.params, frozen)


def _program(pair: ActorCritic, ppo: PPO, params: Any, batch: Any) -> Any:
    logprobs, values, _ = pair.read(params, batch, ppo.temperature)
    return logprobs, values, pair.refer(params, batch, ppo.temperature)


_read = jax.jit(_program, static_argnums=(0, 1))
_worth = jax.jit(worth, static_argnums=0)


def _gap(rollout: Rollout, logprobs: np.ndarray) -> float:
    """The largest difference of a token's log-probability in the sampler's eyes and in the trainer's."""
    mine = logprobs[rollout.batch["loss_mask"] > 0]
    inside = np.arange(rollout.sampled.shape[1]) < rollout.lengths[:, None]
    return float(np.abs(mine - rollout.sampled[inside]).max(initial=0.0))


def _means(seen: Sequence[Mapping[str, float]]) -> dict[str, float]:
    means = {name: float(np.mean([one[name] for one in seen])) for name in seen[0] if name != "weight"}
    return means | {"updates": float(len(seen)), "first_ratio": seen[0]["ratio"], "step_kl": seen[-1]["step_kl"]}


def _refuse_divergence(metrics: Mapping[str, float], iteration: int) -> None:
    for name in ("loss", "grad_norm"):
        if not np.isfinite(metrics[name]) and not metrics.get("skipped"):
            raise Diverged(f"{name} is {metrics[name]} in iteration {iteration + 1}; earlier checkpoints are intact")


def _reached(criteria: Mapping[str, float], values: Mapping[str, float]) -> str:
    """The first criterion that the values have reached, in words; empty if none."""
    for name, number in criteria.items():
        if values and name not in values:
            raise ValueError(f"no metric {name!r} to stop at{meant(name, values)}; have {sorted(values)}")
        if values and values[name] >= number:
            return _in_words({name: number})[0]
    return ""


def _in_words(criteria: Mapping[str, float]) -> list[str]:
    return [f"{name} reached {number:g}" for name, number in criteria.items()]
