"""tools/load_test.py runs: the command that serves, in a process of its own, asked by several clients and ended."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.oracle
@pytest.mark.slow
def test_clients_are_answered_without_errors_and_without_compiling():
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    settings = {"size": "tiny", "clients": 6, "tokens": 8, "rounds": 1, "slots": 2, "alone": 1}
    command = [sys.executable, "tools/load_test.py", *(f"--{name}={value}" for name, value in settings.items())]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "programs compiled while it served: 0" in done.stdout
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["errors"], told["vs_peer"]) == (0, None)
    assert 0 < told["p50_first_token_ms"] <= told["p99_first_token_ms"]
    assert told["vs_transformers"] > 0 and told["tokens_per_second"] > 0
