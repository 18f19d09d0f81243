"""One flat loop: step, log, evaluate, save. It can be killed at any point and started again."""

import math
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
from rich.console import Console

from research.core import hosts
from research.core import mesh as meshes
from research.training.checkpoint import Checkpoints
from research.training.evaluate import Evaluate
from research.training.log import Logger
from research.training.progress import Bar, Rate, parameter_table
from research.training.state import State
from research.training.step import Step


class Source(Protocol):
    """Where batches come from; `state` and `restore` may be missing where `batch` depends on the step alone."""

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        """The batch of update `step`, counted from 0."""
        ...


class Diverged(FloatingPointError):
    """The loss or the gradient is not a finite number; the message names the step."""


@dataclass(frozen=True)
class Result:
    """How a run ended: the state after the last step, why it stopped ("finished", "early", "signal"), and the best."""

    state: State
    frozen: Any
    stopped: str
    best: float | None
    best_step: int | None


@dataclass
class Patience:
    """The best value of the metric so far, and for how many evaluations it has not been beaten."""

    higher_is_better: bool = False
    best: float | None = None
    best_step: int | None = None
    waited: int = 0

    def improved(self, step: int, value: float) -> bool:
        """Takes a new value; true when it is the best so far."""
        sign = -1.0 if self.higher_is_better else 1.0
        if not math.isnan(value) and (self.best is None or sign * value < sign * self.best):
            self.best, self.best_step, self.waited = value, step, 0
            return True
        self.waited += 1
        return False

    def verdict(self, patience: int) -> str:
        """ "early" after `patience` evaluations without a better one (0: never), else "finished"."""
        return "early" if patience and self.waited >= patience else "finished"


def fit(
    state: State,
    frozen: Any,
    step: Step,
    source: Source,
    *,
    steps: int,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 0,
    checkpoints: Checkpoints | None = None,
    save_every: int = 0,
    logger: Logger | None = None,
    log_every: int = 1,
    metric: str = "loss",
    higher_is_better: bool = False,
    patience: int = 0,
    flops_per_token: float = 0.0,
    check: Callable[[Mapping[str, Any]], None] | None = None,
    show: Callable[[Mapping[str, Any]], None] | None = None,
    table: bool = False,
    title: str = "training",
    progress: bool = True,
) -> Result:
    """Trains until `steps` updates are done, going on from the newest checkpoint if there is one.

    evaluate runs every `evaluate_every` updates and after the last; the best value of `metric` is saved and, after
    `patience` evaluations without a better one (0: never), the run stops. A checkpoint is written every
    `save_every` updates (0: only these others), at a new best, at SIGTERM or Ctrl-C, and at the end.
    `check` sees every batch on the host before it is used, `show` the first one. Metrics are read one step late, so
    the device never waits for the host. flops_per_token > 0 adds "tflops" to the log.

    Raises:
      Diverged: a loss or gradient norm is NaN or infinite, and no loss scale is left to halve; nothing of it is saved.
      ValueError: a batch without targets, or one that `check` refuses; patience without evaluations on the way.
    """
    _check_patience(patience, evaluate, evaluate_every)
    # ---- resume ----
    tracker = Patience(higher_is_better)
    if checkpoints is not None:
        frozen = checkpoints.keep_frozen(frozen)
        state, tracker = _resume(checkpoints, state, source, tracker)
    n = int(state.step)
    stopped = tracker.verdict(patience)
    _introduce(state, frozen, source.batch(n) if show and n < steps else None, show, table)
    with _Signals() as signals, Bar(title, n, steps, on=progress) as bar:
        report = _Report(bar, logger, n, log_every, flops_per_token, meshes.host_rows(getattr(step, "mesh", None))[1])
        while n < steps and stopped == "finished":
            # ---- update: dispatch this step, then read the numbers of the one before ----
            batch = source.batch(n)
            if check is not None:
                check(batch)
            state, metrics = step(state, frozen, batch)
            n += 1
            report.push(n, metrics, batch)
            # ---- evaluate ----
            values, best = None, False
            if evaluate is not None and (n == steps or (evaluate_every and n % evaluate_every == 0)):
                report.flush()
                values = evaluate(state.params, frozen)
                report.evaluated(n, values)
                best = tracker.improved(n, values[metric])
            # ---- save ----
            stopped = "signal" if signals.anywhere() else tracker.verdict(patience)
            ending = n == steps or stopped != "finished"
            if checkpoints is not None and (ending or best or (save_every and n % save_every == 0)):
                report.flush()
                position = source.state(n) if hasattr(source, "state") else None
                checkpoints.save(state, data=position, metrics=values, progress=vars(tracker))
        report.flush()
    if checkpoints is not None:
        checkpoints.wait()
    return Result(state, frozen, stopped, tracker.best, tracker.best_step)


def _check_patience(patience: int, evaluate: Evaluate | None, evaluate_every: int) -> None:
    """Refuses a patience that no evaluation would ever try."""
    if patience and (evaluate is None or not evaluate_every):
        had = "there is nothing to evaluate" if evaluate is None else "evaluate_every is 0"
        raise ValueError(f"patience {patience} counts evaluations during the run, and {had}")


def _resume(checkpoints: Checkpoints, state: State, source: Source, tracker: Patience) -> tuple[State, Patience]:
    restored = checkpoints.restore(state)
    if restored is None:
        return state, tracker
    saved = restored.meta
    if saved["data"] is not None and hasattr(source, "restore"):
        source.restore(saved["data"])
    return restored.state, Patience(**saved["progress"]) if saved["progress"] else tracker


def _introduce(state: State, frozen: Any, first: Any, show: Callable[..., None] | None, table: bool) -> None:
    """The weights, and the first batch with its mask, before anything is learned from it."""
    if table and hosts.is_first():
        Console().print(parameter_table(state.params, frozen))
    if show is not None and first is not None:
        show(first)


class _Report:
    """Metrics on their way from the device to the log, one step behind it."""

    def __init__(
        self, bar: Bar, logger: Logger | None, start: int, every: int, flops_per_token: float, blocks: int
    ) -> None:
        """`blocks`: how many blocks of rows like this host's a batch has."""
        self._bar, self._every, self._flops, self._blocks = bar, max(1, every), flops_per_token, blocks
        self._logger = logger if hosts.is_first() else None
        if self._logger is not None:
            self._logger.begin(start)
        self._pending: tuple[int, Mapping[str, Any], int] | None = None
        self._rate, self._speed = Rate(), 0.0

    def push(self, step: int, metrics: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        self.flush()
        tokens = sum(int(np.prod(batch[name].shape)) for name in ("tokens", "inputs") if name in batch)
        self._pending = (step, metrics, tokens * self._blocks)

    def flush(self) -> None:
        """Waits for the pending step and logs it."""
        if self._pending is None:
            return
        (step, device, tokens), self._pending = self._pending, None
        values = {name: float(value) for name, value in jax.device_get(dict(device)).items()}
        self._rate.add(tokens)
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values[name]) and not values.get("skipped"):
                if self._logger:
                    self._logger.write(step, values)
                if values.get("weight") == 0:
                    raise Diverged(f"every position of the batch of step {step} is masked: nothing to learn from it")
                scale = values.get("loss_scale")
                told = "" if scale is None else f", loss scale {scale:.6g}, which may not be halved"
                raise Diverged(
                    f"{name} is {values[name]} at step {step} (learning rate {values['learning_rate']:.3g}{told}); "
                    "the run stops here and checkpoints of earlier steps are intact"
                )
        if step % self._every == 0:
            self._speed = self._rate.read()
            rates = {"tokens_per_second": self._speed}
            if self._flops:
                rates["tflops"] = self._speed * self._flops / 1e12
            if self._logger:
                self._logger.write(step, values | rates)
        self._bar.update(step, {"loss": values["loss"], "tokens/s": self._speed})

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        if self._logger:
            self._logger.write(step, values, split="held_out")
        self._bar.say(f"step {step}: held-out " + "  ".join(f"{name} {v:,.5g}" for name, v in values.items()))
        self._rate.read()  # the time of the evaluation is not counted as training


class _Signals:
    """SIGTERM and Ctrl-C set a flag that the loop reads after the step; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.caught = False
        self._any = hosts.AnyHost()
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._catch)
        return self

    def anywhere(self) -> bool:
        """Whether some host was signalled; all hosts hear it after the same step."""
        return self._any(self.caught)

    def _catch(self, number: int, frame: Any) -> None:
        del frame
        if self.caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught = True

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
