"""DPO that is killed and started again equals a run that was not, with the reference's numbers computed once."""

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
STEPS = 40


def command(folder, pairs):
    return [
        sys.executable,
        "-m",
        "experiments.train",
        "--config=configs/preference_tuning.py:dpo,tiny",
        f"--workdir={folder}",
        f"--config.data.path={pairs}",
        "--config.data.length=32",
        f"--config.steps={STEPS}",
        "--config.evaluate_every=0",
        "--config.save_every=7",
        "--config.model.residual_dropout=0.1",  # the random state is part of what must be resumed
    ]


def numbers(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    told = ("step", "split", "loss", "grad_norm", "margin", "reward_chosen")
    return [tuple(map(line.get, told)) for line in lines]


def test_sigkill_of_a_run_beside_a_reference(tmp_path):
    pairs, whole, killed = tmp_path / "pairs.jsonl", tmp_path / "whole", tmp_path / "killed"
    rows = [{"prompt": f"{i}: ", "chosen": "yes" * (1 + i % 4), "rejected": "no" * (1 + i % 3)} for i in range(30)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    subprocess.run(command(whole, pairs), cwd=ROOT, check=True, capture_output=True)
    process = subprocess.Popen(command(killed, pairs), cwd=ROOT, stdout=subprocess.DEVNULL)
    log = killed / "metrics.jsonl"
    while process.poll() is None:
        if log.is_file() and log.read_text().count('"train"') >= 12:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait(timeout=300) == -signal.SIGKILL, "it ended before it was killed"
    kept = {path.name: path.read_bytes() for path in (killed / "reference").iterdir()}
    times = {path.name: path.stat().st_mtime_ns for path in (killed / "reference").iterdir()}
    done = subprocess.run(command(killed, pairs), cwd=ROOT, check=True, capture_output=True, text=True)
    assert "reference" not in done.stdout, "what the reference says was computed a second time"
    assert times == {path.name: path.stat().st_mtime_ns for path in (killed / "reference").iterdir()}
    assert kept == {path.name: path.read_bytes() for path in (whole / "reference").iterdir()}
    assert numbers(killed) == numbers(whole) and len(numbers(whole)) == STEPS + 1
    ours, theirs = (tree.paths(load_params(f / "checkpoints", STEPS)[0]) for f in (killed, whole))
    assert ours.keys() == theirs.keys()
    for path, weight in ours.items():
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(theirs[path]), err_msg=path)
