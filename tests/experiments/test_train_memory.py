"""experiments/train.py says what a run takes before it starts, and refuses what cannot fit."""

import io
import time

import numpy as np
import pytest
from rich.console import Console

from configs import forkme
from experiments import train
from research.core import memory
from research.recipes.assemble import complete, make_model
from research.scaling.memory import setting_of, training


def parts(**changes):
    config = complete(forkme.get_config("tiny").to_dict() | changes)
    ids = type("Ids", (), {"vocab_size": 300, "bos_id": 1, "eos_id": 2, "pad_id": 0})
    model = make_model(config, ids).model
    shape = (config["data"]["batch_size"], config["data"]["length"])
    names = ("tokens", "targets", "loss_mask", "positions", "segment_ids")
    return config, model, {name: np.ones(shape, np.int32) for name in names}, None


def test_the_account_is_printed_in_less_than_a_second():
    console = Console(file=io.StringIO(), width=200)
    given = parts()
    train.check_memory(*given, console)
    told = training(setting_of(*given))
    assert f"memory on a device: {told.total / 1e6:,.2f} MB of" in console.file.getvalue()
    assert f"weights {told.weights / 1e3:,.2f} kB" in console.file.getvalue()
    started = time.process_time()
    train.check_memory(*given, console)
    assert time.process_time() - started < 1


def test_a_run_that_cannot_fit_is_refused_with_what_would(monkeypatch):
    given = parts()
    told = training(setting_of(*given))
    monkeypatch.setattr(memory, "available", lambda device: told.total * 3 // 4)
    with pytest.raises(ValueError, match=r"this run takes about .* it would fit with data.batch_size=\d"):
        train.check_memory(*given, Console(quiet=True))


def test_settings_of_a_config():
    given = parts(peft={"method": "lora", "rank": 2}, accumulate=2)
    setting = setting_of(*given)
    assert (setting.rows, setting.length, setting.accumulate, setting.packed) == (4, 32, 2, True)
    assert training(setting).optimizer < training(setting_of(*parts())).optimizer
    frozen = setting_of(*parts(trainable=(".*/mlp/.*",)))
    assert training(frozen).weights == training(setting_of(*parts())).weights
    assert training(frozen).optimizer < training(setting_of(*parts())).optimizer


def test_pairs_are_two_rows_and_a_copy_stays_beside_the_weights():
    config, model, batch, mesh = parts()
    pairs = {name: np.ones((4, 2, 32), np.int32) for name in batch}
    setting = setting_of(config, model, pairs, mesh)
    assert (setting.rows, setting.answers, setting.length, setting.copied) == (4, 2, 32, False)
    twice = {name: np.ones((8, 32), np.int32) for name in batch}
    assert training(setting) == training(setting_of(config, model, twice, mesh))
    single = setting_of(config, model, pairs | {"desirable": np.ones(4)}, mesh)
    assert training(single) == training(setting_of(config, model, batch, mesh))
    copied = setting_of(config | {"loss": {"name": "dpo", "reference": "copy"}}, model, pairs, mesh)
    assert training(copied).weights == 2 * training(setting).weights
    assert training(copied).optimizer == training(setting).optimizer
