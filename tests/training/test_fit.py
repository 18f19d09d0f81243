import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.training import optim
from research.training.checkpoint import Checkpoints
from research.training.evaluate import make_evaluate
from research.training.fit import Diverged, Patience, fit
from research.training.log import Logger, read
from research.training.state import create
from research.training.step import make_step
from tests.training import toy

OPTIMIZER = optim.make({"name": "adamw", "learning_rate": 0.02, "schedule": "constant"}, toy.params())
STEP = make_step(toy.loss, OPTIMIZER)


def start():
    return create(toy.params(), OPTIMIZER, rng=jax.random.key(3))


def train(folder, *, step=STEP, source=None, **options):
    with Logger(folder) as logger, Checkpoints(folder / "checkpoints", say=lambda _: None) as saver:
        options = {"steps": 6, "progress": False, "save_every": 2} | options
        return fit(*start(), step, source or toy.Source(), logger=logger, checkpoints=saver, **options)


def numbers(folder):
    """The log without the clock."""
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in read(folder / "metrics.jsonl")]


def weights(result):
    return jax.tree.map(np.asarray, (result.state.params, result.state.opt_state))


def test_a_run_in_two_parts_is_the_run_in_one(tmp_path):
    evaluate = make_evaluate(toy.loss, [toy.batch(99)])
    whole = train(tmp_path / "whole", evaluate=evaluate, evaluate_every=3)
    train(tmp_path / "parts", steps=3, evaluate=evaluate, evaluate_every=3)
    parts = train(tmp_path / "parts", evaluate=evaluate, evaluate_every=3)
    chex.assert_trees_all_equal(weights(whole), weights(parts))
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "parts")
    assert [(line["step"], line["split"]) for line in numbers(tmp_path / "whole")][2:4] == [
        (3, "train"),
        (3, "held_out"),
    ]
    assert (whole.stopped, whole.best_step, whole.best) == ("finished", parts.best_step, parts.best)


def test_a_finished_run_is_left_alone(tmp_path):
    first = train(tmp_path)
    log = (tmp_path / "metrics.jsonl").read_text()
    again = train(tmp_path)
    chex.assert_trees_all_equal(weights(first), weights(again))
    assert (tmp_path / "metrics.jsonl").read_text() == log


def test_nan_stops_the_run_and_names_the_step(tmp_path):
    def poisoned(params, batch, rng):
        total, aux = toy.loss(params, batch, rng)
        return total * jnp.where(batch["poison"].any(), jnp.nan, 1.0), aux

    class Source:
        def batch(self, step):
            return toy.batch(step) | {"poison": np.full(4, step == 3)}

    with pytest.raises(Diverged, match="loss is nan at step 4"):
        train(tmp_path, step=make_step(poisoned, OPTIMIZER), source=Source(), save_every=1)
    assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == 3
    assert numbers(tmp_path)[-1]["loss"] is None


def test_early_stopping_keeps_the_best_and_stays_stopped(tmp_path):
    losses = iter([5.0, 4.0, 4.5, 4.2, 4.1, 3.0])
    evaluate = lambda params, frozen: {"loss": next(losses)}  # noqa: E731
    result = train(tmp_path, steps=20, evaluate=evaluate, evaluate_every=1, patience=3, save_every=0)
    assert (result.stopped, result.best, result.best_step, int(result.state.step)) == ("early", 4.0, 2, 5)
    saver = Checkpoints(tmp_path / "checkpoints")
    assert saver.best() == 2
    again = train(tmp_path, steps=20, evaluate=evaluate, evaluate_every=1, patience=3, save_every=0)
    assert (again.stopped, int(again.state.step)) == ("early", 5)


def test_patience_takes_either_direction_and_no_nan():
    lower, higher = Patience(), Patience(higher_is_better=True)
    assert [lower.improved(n, v) for n, v in enumerate([float("nan"), 2.0, 3.0, 1.0])] == [False, True, False, True]
    assert [higher.improved(n, v) for n, v in enumerate([1.0, 2.0, 1.5])] == [True, True, False]
    assert (lower.best, higher.best, higher.waited) == (1.0, 2.0, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_rest_follows_later(tmp_path, number):
    class Source(toy.Source):
        def batch(self, step):
            if step == 2:
                os.kill(os.getpid(), number)
            return super().batch(step)

    before = signal.getsignal(number)
    stopped = train(tmp_path / "run", source=Source(), save_every=0)
    assert (stopped.stopped, int(stopped.state.step)) == ("signal", 3)
    assert signal.getsignal(number) is before
    chex.assert_trees_all_equal(weights(train(tmp_path / "run")), weights(train(tmp_path / "whole")))


def test_the_position_of_the_data_is_kept(tmp_path):
    class Source(toy.Source):
        restored = None

        def state(self, step):
            return {"rows": 4 * step}

        def restore(self, state):
            self.restored = state

    train(tmp_path, steps=4, source=Source())
    source = Source()
    train(tmp_path, source=source)
    assert source.restored == {"rows": 16}


def test_shows_the_first_batch_and_the_weights_and_checks_every_batch(tmp_path, capsys):
    shown, checked = [], []
    train(tmp_path, show=shown.append, check=checked.append, table=True, progress=True, flops_per_token=1e6)
    chex.assert_trees_all_equal(shown, [toy.batch(0)])
    assert len(checked) == 6
    out = capsys.readouterr().out
    assert "embed/tokens/embedding" in out
    assert "training 6/6" in out
    assert all(line["tflops"] > 0 for line in numbers(tmp_path))


def test_the_log_may_be_sparse(tmp_path):
    train(tmp_path, log_every=3)
    assert [line["step"] for line in numbers(tmp_path)] == [3, 6]
