"""PPO that is killed and started again equals a run that was not: numbers, answers and weights, bit for bit."""

import json
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
ITERATIONS = 8


def command(folder, data):
    return [
        sys.executable,
        "-m",
        "experiments.ppo",
        "--config=configs/ppo.py:tiny",
        f"--workdir={folder}",
        f"--config.data={data}",
        f"--config.schedule.iterations={ITERATIONS}",
        "--config.schedule.save_every=3",
    ]


def told(folder):
    (cell,) = folder.glob("adaptive-0-*/")
    numbers = [json.loads(line) for line in (cell / "metrics.jsonl").read_text().splitlines()]
    answers = {path.name: json.loads(path.read_text()) for path in sorted((cell / "answers").glob("*.json"))}
    figures = json.loads((folder / "adaptive-0.json").read_text())
    for one in (*answers.values(), *figures["history"]):
        del one["cpu_seconds"]  # the time it took is the only thing that may differ
    return numbers, answers, figures


def test_sigkill_between_rollouts(tmp_path, data_dir):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole, data_dir), cwd=ROOT, check=True, capture_output=True)
    process = subprocess.Popen(command(killed, data_dir), cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        log = next(killed.glob("adaptive-0-*/metrics.jsonl"), None)
        if log is not None and log.read_text().count('"train"') >= 5:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait(timeout=300) == -signal.SIGKILL, "it ended before it was killed"
    subprocess.run(command(killed, data_dir), cwd=ROOT, check=True, capture_output=True)
    assert told(killed) == told(whole)
    train = [line for line in told(whole)[0] if line["split"] == "train"]
    assert [line["step"] for line in train] == list(range(1, ITERATIONS + 1))
    assert len({line["kl_coefficient"] for line in train}) > 4, "the KL coefficient is part of what is resumed"
    ours, theirs = (tree.paths(load_params(next(f.glob("adaptive-0-*/checkpoints")))[0]) for f in (killed, whole))
    assert ours.keys() == theirs.keys()
    for path, weight in ours.items():
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(theirs[path]), err_msg=path)
