"""A run that is killed and started again equals one that was not: losses and weights, bit for bit."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from research.core import tree
from research.training.checkpoint import load_params

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
STEPS = 60


def command(folder, text, extra=()):
    return [
        sys.executable,
        "-m",
        "experiments.train",
        "--config=configs/forkme.py:tiny",
        f"--workdir={folder}",
        f"--config.steps={STEPS}",
        "--config.save_every=7",
        "--config.evaluate_every=20",
        "--config.model.residual_dropout=0.1",  # the random state is part of what must be resumed
        "--config.data.kind=text",
        f"--config.data.path={text}",
        "--config.data.heldout=0.2",
        *extra,
    ]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Some documents to learn from."""
    folder = tmp_path_factory.mktemp("text")
    rng = random.Random(0)
    for i in range(60):
        words = " ".join(rng.choice(["the", "run", "goes", "on", "where", "it", "was"]) for _ in range(60))
        (folder / f"{i:02d}.txt").write_text(f"Document {i}. {words}")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, text):
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(command(folder, text), cwd=ROOT, check=True, capture_output=True)
    return folder


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["split"], *map(line.get, ("loss", "grad_norm", "loss_scale"))) for line in lines]


def stop_after(process, folder, step, number):
    """Sends the signal once the log has reached the step; gives up when the run ends first."""
    log = folder / "metrics.jsonl"
    while process.poll() is None:
        if log.is_file() and log.read_text().count('"train"') >= step:
            process.send_signal(number)
            break
        time.sleep(0.005)
    return process.wait(timeout=300)


def same_as(whole, folder):
    assert losses(folder) == losses(whole)
    ours, theirs = (tree.paths(load_params(f / "checkpoints", STEPS)[0]) for f in (folder, whole))
    assert ours.keys() == theirs.keys()
    for path, weight in ours.items():
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(theirs[path]), err_msg=path)


@pytest.mark.parametrize("seed", [0, 1])
def test_sigkill_at_a_random_step(tmp_path, text, whole, seed):
    step = random.Random(seed).randint(8, STEPS - 12)
    process = subprocess.Popen(command(tmp_path, text), cwd=ROOT, stdout=subprocess.DEVNULL)
    assert stop_after(process, tmp_path, step, signal.SIGKILL) == -signal.SIGKILL, "it ended before it was killed"
    subprocess.run(command(tmp_path, text), cwd=ROOT, check=True, capture_output=True)
    same_as(whole, tmp_path)


def test_sigkill_between_changes_of_the_loss_scale(tmp_path, text):
    scaled = (
        "--config.model.policy=f16",
        f"--config.loss_scale.initial={2.0**34}",
        "--config.loss_scale.growth_interval=9",
    )
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole, text, scaled), cwd=ROOT, check=True, capture_output=True)
    assert {line[-1] for line in losses(whole) if line[-1]} > {2.0**34, 2.0**33}
    process = subprocess.Popen(command(folder, text, scaled), cwd=ROOT, stdout=subprocess.DEVNULL)
    assert stop_after(process, folder, 25, signal.SIGKILL) == -signal.SIGKILL, "it ended before it was killed"
    subprocess.run(command(folder, text, scaled), cwd=ROOT, check=True, capture_output=True)
    same_as(whole, folder)


def test_sigterm_saves_and_exits_cleanly(tmp_path, text, whole):
    process = subprocess.Popen(command(tmp_path, text), cwd=ROOT, stdout=subprocess.DEVNULL)
    assert stop_after(process, tmp_path, 10, signal.SIGTERM) == 130
    reached = max(step for step, *_ in losses(tmp_path))
    assert 10 <= reached < STEPS
    assert (tmp_path / "checkpoints" / f"{reached:08d}" / "manifest.json").is_file()
    subprocess.run(command(tmp_path, text), cwd=ROOT, check=True, capture_output=True)
    same_as(whole, tmp_path)
