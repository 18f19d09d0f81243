"""experiments/train.py as several real processes on this machine: the same run as one process, however it is ended."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from configs import forkme
from experiments.train import run
from research.recipes.assemble import complete

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
STEPS, SAVE_EVERY, EVALUATE_EVERY = 120, 12, 24
LIMIT = 600  # seconds, on a machine that does much else


def changes(text):
    """What all runs have in common; dropout, so that the row and not the host decides what is drawn."""
    return {
        "steps": STEPS,
        "save_every": SAVE_EVERY,
        "evaluate_every": EVALUATE_EVERY,
        "model.residual_dropout": 0.1,
        "optimizer.learning_rate": 1e-3,
        "data.kind": "text",
        "data.path": str(text),
        "data.heldout": 0.2,
    }


def start(folder, text, count, *, extra=lambda host: ()):
    """`count` processes of one run, each with its output in `<folder>.<host>`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"  # of two counts the last holds
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    environment |= {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": str(count)}
    settings = [f"--config.{name}={value}" for name, value in changes(text).items()]
    command = [sys.executable, "-m", "experiments.train", "--config=configs/forkme.py:tiny", f"--workdir={folder}"]
    processes = []
    for host in range(count):
        with Path(f"{folder}.{host}").open("w") as out:
            process = subprocess.Popen(
                [*command, *settings, "--config.mesh.data=-1", f"--process_id={host}", *extra(host)],
                cwd=ROOT,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        processes.append(process)
    return processes


def ended(processes, limit=LIMIT):
    """Their exit codes; none may outlive the test."""
    try:
        until = time.monotonic() + limit
        return [process.wait(max(0.1, until - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.kill()


def wait_for(what, processes):
    """Until `what()` is true or one of the processes has ended."""
    until = time.monotonic() + LIMIT
    while not what() and time.monotonic() < until and all(process.poll() is None for process in processes):
        time.sleep(0.005)


def said(folder, host):
    return Path(f"{folder}.{host}").read_text()


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {(line["step"], line["split"]): line["loss"] for line in lines}


def same(found, expected):
    np.testing.assert_allclose([found[key] for key in found], [expected[key] for key in found], rtol=1e-5)


def alone(folder, text):
    """This process, which goes on where the folder is or begins."""
    made = forkme.get_config("tiny").to_dict() | {"mesh": {}}
    for name, value in changes(text).items():
        *sections, key = name.split(".")
        (made[sections[0]] if sections else made)[key] = value
    result = run(complete(made), folder, Console(quiet=True))
    assert int(result.state.step) == STEPS
    return losses(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, text):
    """The losses of one process that nothing interrupts."""
    return alone(tmp_path_factory.mktemp("whole"), text)


@pytest.fixture(scope="module")
def killed(tmp_path_factory, text):
    """(folder, what host 0 said) of two hosts, of which the second is killed after the first checkpoint."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    processes = start(folder, text, 2)
    saved = folder / "checkpoints" / f"{SAVE_EVERY:08d}" / "manifest.json"
    wait_for(saved.is_file, processes)
    processes[1].kill()
    begun = time.monotonic()
    codes = ended(processes, 60)
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, None), said(folder, 0)
    assert time.monotonic() - begun < 60
    return folder, said(folder, 0)


def test_two_hosts_have_the_losses_of_one_and_say_when_one_of_them_is_gone(killed, whole):
    folder, told = killed
    found = losses(folder)
    assert len(found) >= SAVE_EVERY and max(found)[0] < STEPS
    same(found, whole)
    assert "another host ended" in told or "another task died" in told, told
    assert said(folder, 1).count("error") == 0 and "loss" not in said(folder, 1), "only the first host talks"


def test_the_others_end_and_say_so_when_the_first_host_is_gone(killed, tmp_path, text):
    folder = tmp_path / "run"
    shutil.copytree(killed[0], folder)
    log = folder / "metrics.jsonl"
    begun = log.read_text().count("\n")
    processes = start(folder, text, 2)
    wait_for(lambda: log.read_text().count("\n") > begun, processes)
    processes[0].kill()
    codes = ended(processes, 60)
    assert codes[0] == -signal.SIGKILL and codes[1] not in (0, None), said(folder, 1)
    told = said(folder, 1)
    assert "another host ended" in told or "another task died" in told or "coordinat" in told, told


def test_what_two_hosts_saved_one_goes_on_with(killed, whole, text, tmp_path):
    shutil.copytree(killed[0], tmp_path / "run")
    found = alone(tmp_path / "run", text)
    assert found.keys() == whole.keys()
    same(found, whole)


def test_four_hosts_go_on_and_all_stop_at_a_signal_to_one_of_them(killed, whole, text, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(killed[0], folder)
    begun = max(losses(folder))[0]
    processes = start(folder, text, 4)
    log, until = folder / "metrics.jsonl", max(begun, EVALUATE_EVERY) + 2
    wait_for(lambda: f'"step": {until},' in log.read_text(), processes)
    processes[2].send_signal(signal.SIGTERM)
    assert ended(processes) == [130] * 4, said(folder, 0)
    found = losses(folder)
    reached = max(found)[0]
    assert until <= reached < STEPS and (EVALUATE_EVERY, "held_out") in found
    assert len(found) == reached + reached // EVALUATE_EVERY, "every step is logged once"
    assert (folder / "checkpoints" / f"{reached:08d}" / "manifest.json").is_file()
    same(found, whole)
    after = alone(folder, text)
    assert after.keys() == whole.keys()
    same(after, whole)


def test_hosts_that_disagree_on_the_config_say_on_what(text, tmp_path):
    folder = tmp_path / "run"
    extra = lambda host: ("--config.optimizer.learning_rate=0.5",) if host else ()  # noqa: E731
    processes = start(folder, text, 2, extra=extra)
    assert ended(processes) == [2, 2], said(folder, 0)
    for host in range(2):
        lines = [line for line in said(folder, host).splitlines() if "error" in line]
        assert lines == [
            f"error: host {host} of 2: the hosts disagree on the config: optimizer.learning_rate is 0.001 on host 0 "
            "and 0.5 on host 1; start all with the same"
        ]
