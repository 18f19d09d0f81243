"""tools/bench_rl.py runs, on sides that agree: it refuses to time them where they do not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.oracle
@pytest.mark.slow
def test_both_sides_read_and_learn_alike_and_are_timed():
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "tools/bench_rl.py", "--tiny", "--policy=f32", "--rollouts=4", "--minibatch=2"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    compared = [line.split(":")[0] for line in done.stdout.splitlines() if "mean difference" in line]
    assert compared == [
        *("logprobs", "values", "reference", "advantages", "returns", "loss", "gradient norm"),
        *("loss", "gradient norm"),
    ]
    last = json.loads(done.stdout.splitlines()[-1])
    assert set(last) == {
        f"{m}_{k}" for m, p in (("ppo", "torch"), ("dpo", "trl")) for k in (f"vs_{p}", "seconds", "fraction")
    }
    assert all(value > 0 for value in last.values()), last
