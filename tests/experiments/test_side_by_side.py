"""Several processes do the stages of one folder: each once, measuring ones alone, and none is lost with a process."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import pytest

from experiments.stages.claims import claimed, room

ROOT = Path(__file__).resolve().parents[2]
STAGES = """
import json, os, sys, time
from pathlib import Path
from rich.console import Console
from experiments.stages import Stage, run_all

def busy(name):
    def run(config, inputs, folder):
        start = time.time()
        with open(config["log"], "a") as log:
            log.write(json.dumps(["begin", name, os.getpid(), start, 0]) + "\\n")
        time.sleep(float(sys.argv[2]))
        with open(config["log"], "a") as log:
            log.write(json.dumps(["end", name, os.getpid(), start, time.time()]) + "\\n")
        return {"sum": 1 + sum(done.result["sum"] for done in inputs.values())}
    return run

def stage(name, *needs, **more):
    return Stage(name, name, busy(name), needs=needs, reads=("log",), **more)

stages = (stage("a"), stage("b", "a"), stage("c", "a"), stage("quiet", "a", alone=True), stage("d", "a"), stage("e"),
          stage("last", "b", "c", "d", "quiet"))
workdir = Path(sys.argv[1])
done = run_all(stages, {"log": str(workdir / "log")}, workdir)
print("sum", done["last"].result["sum"])
"""


def start(workdir: Path, seconds: float) -> subprocess.Popen:
    script = workdir / "shared.py"
    script.write_text(STAGES)
    command = [sys.executable, str(script), str(workdir), str(seconds)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)


def log(workdir: Path) -> list[list]:
    file = workdir / "log"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_for(happened, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_two_processes_do_every_stage_once_and_leave_one_alone_that_measures(tmp_path):
    both = [start(tmp_path, 1.5) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert all("sum 9" in text for text in said) and all("done beside" in text for text in said), said
    spans = {name: (begin, end) for what, name, _, begin, end in log(tmp_path) if what == "end"}
    assert sorted(spans) == sorted({name for _, name, *_ in log(tmp_path)}) and len(log(tmp_path)) == 2 * 7
    assert {pid for _, _, pid, *_ in log(tmp_path)} == {process.pid for process in both}
    beside = [
        (x, y) for x, y in combinations(spans, 2) if max(spans[x][0], spans[y][0]) < min(spans[x][1], spans[y][1])
    ]
    assert beside and not [pair for pair in beside if "quiet" in pair], beside


def test_a_killed_process_leaves_its_stage_to_the_other(tmp_path):
    first = start(tmp_path, 600)
    wait_for(lambda: log(tmp_path))
    second = start(tmp_path, 0.5)
    wait_for(lambda: {pid for _, _, pid, *_ in log(tmp_path)} == {first.pid, second.pid})
    first.kill()
    first.communicate()
    assert "sum 9" in second.communicate()[0]
    ended = [name for what, name, *_ in log(tmp_path) if what == "end"]
    assert sorted(ended) == sorted(set(ended)) and len(ended) == 7
    begun = [name for what, name, *_ in log(tmp_path) if what == "begin"]
    assert len(begun) == 8, "what the killed one was at is done again"


def test_a_claim_is_one_process_s(tmp_path):
    with (
        claimed(tmp_path / "stage") as mine,
        claimed(tmp_path / "stage") as again,
        claimed(tmp_path / "other") as other,
    ):
        assert mine and not again and other
    with claimed(tmp_path / "stage") as mine:
        assert mine
    with room(tmp_path, alone=False), room(tmp_path, alone=False):
        pass
    with room(tmp_path, alone=True):
        pass


@pytest.mark.slow
def test_the_helper_ends_with_the_job_that_started_it(tmp_path):
    arguments = ["--config=configs/lifecycle.py:tiny", f"--workdir={tmp_path}"]
    job = subprocess.Popen(
        [sys.executable, "-c", HELPED, str(tmp_path), *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    helper = int(job.stdout.readline())
    wait_for(lambda: list(tmp_path.glob("*/lock")))
    os.kill(job.pid, signal.SIGKILL)
    job.communicate()
    wait_for(lambda: gone(helper), 60)
    # A job that ends in good order takes its helper with it too.
    job = subprocess.run(
        [sys.executable, "-c", HELPED, str(tmp_path), *arguments, "--once"], cwd=ROOT, capture_output=True, text=True
    )
    assert job.returncode == 0 and gone(int(job.stdout.split()[0])), job


HELPED = """
import subprocess, sys, time
from pathlib import Path
from experiments.stages import helper

made = subprocess.Popen
def told(*args, **kwargs):
    process = made(*args, **kwargs)
    print(process.pid, flush=True)
    return process
subprocess.Popen = told
once = sys.argv[-1] == "--once"
with helper.helping(sys.argv[2:-1] if once else sys.argv[2:], Path(sys.argv[1])):
    time.sleep(1 if once else 600)
"""
