import json
import sys

import pytest

from research.training.log import Logger, check_writable, read


def steps(folder):
    return [(line["step"], line["split"]) for line in read(folder / "metrics.jsonl")]


def test_a_resumed_log_has_every_step_once(tmp_path):
    with Logger(tmp_path) as log:
        log.begin(0)
        for n in range(1, 8):
            log.write(n, {"loss": 1.0 / n})
            if n % 3 == 0:
                log.write(n, {"loss": 0.5}, split="held_out")
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 8, "spl')  # killed while writing
    with Logger(tmp_path) as log:
        log.begin(5)
        for n in range(6, 9):
            log.write(n, {"loss": 1.0 / n})
    train = [(n, "train") for n in range(1, 9)]
    assert steps(tmp_path) == [*train[:3], (3, "held_out"), *train[3:]]


def test_a_run_from_the_start_begins_a_new_log(tmp_path):
    for _ in range(2):
        with Logger(tmp_path) as log:
            log.begin(0)
            log.write(1, {"loss": 2.0})
    assert steps(tmp_path) == [(1, "train")]


def test_what_json_cannot_say_becomes_null(tmp_path):
    with Logger(tmp_path) as log:
        log.write(1, {"loss": float("nan"), "grad_norm": float("inf"), "rate": 0.5})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line) == {"step": 1, "split": "train", "loss": None, "grad_norm": None, "rate": 0.5}


def test_damage_in_the_middle_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnot json\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read(tmp_path / "metrics.jsonl")
    assert read(tmp_path / "absent.jsonl") == []


def test_tensorboard_gets_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboardX")
    with Logger(tmp_path, tensorboard=True) as log:
        log.begin(0)
        log.write(1, {"loss": 0.25})
    (events,) = tmp_path.glob("events.*")
    assert b"train/loss" in events.read_bytes()


def test_wandb_gets_the_same_numbers_and_one_run_over_restarts(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finished")

    class Wandb:
        @staticmethod
        def init(**options):
            calls.append(options)
            return Run()

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    for start in (0, 1):
        with Logger(tmp_path, wandb={"project": "p"}) as log:
            log.begin(start)
            log.write(start + 1, {"loss": 0.25})
    first, one, end, second = calls[0], calls[1], calls[2], calls[3]
    assert (one, end) == ((1, {"train/loss": 0.25}), "finished")
    assert first == second
    assert first["project"] == "p"
    assert first["resume"] == "allow"


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"wandb is not installed: pip install 'lifecycle\[tracking\]'"):
        Logger(tmp_path, wandb={"project": "p"})


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write into the folder .*file/run"):
        check_writable(tmp_path / "file" / "run")
