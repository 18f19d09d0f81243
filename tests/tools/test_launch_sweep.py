"""tools/launch on this machine: real jobs of submitit's local executor, killed and started again."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from research.core import hosts
from tools.launch import manifest, task
from tools.launch.__main__ import main
from tools.launch.sweep import outcome

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 120

CONFIG = """
from ml_collections import ConfigDict
def get_config(arg=""):
    return ConfigDict({"rate": 0.1, "seed": 0, "model": {"width": 1}, "offset": 0})
"""
# Notes each start, waits for a file where it is told to, refuses a rate until it may go, and logs a loss.
COMMAND = """
import json, pathlib, sys, time
given = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
here = pathlib.Path(__file__).parent
folder = pathlib.Path(given["workdir"])
folder.mkdir(parents=True, exist_ok=True)
with (here / "starts").open("a") as file:
    file.write(folder.parent.name + "\\n")
rate, width = float(given["config.rate"]), int(given.get("config.model.width", 1))
if rate > 1 and not (here / "mended").exists():
    print("it begins")
    sys.exit("error: rate 2.0 is too large")
while (here / "wait").exists() and not (here / "go").exists():
    time.sleep(0.05)
loss = rate * width + 0.01 * int(given.get("config.seed", 0))
records = [{"step": 1, "split": "train", "loss": 9.0}, {"step": 2, "split": "train", "loss": loss}]
(folder / "metrics.jsonl").write_text("\\n".join(map(json.dumps, records)))
"""


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder with a config and a command; jobs are started in the repository."""
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "command.py").write_text(COMMAND)
    monkeypatch.chdir(ROOT)
    return tmp_path


def words(there, *options, way="local"):
    command = [sys.executable, str(there / "command.py"), f"--config={there / 'config.py'}"]
    return [way, f"--folder={there / 'sweep'}", *options, "--", *command]


def starts(there):
    path = there / "starts"
    return sorted(path.read_text().split()) if path.is_file() else []


def wait_for(what):
    until = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)


def test_a_grid_survives_a_failed_cell_and_does_only_what_is_missing(there, capsys):
    options = ("--grid", "rate=0.5,2.0", "--grid", "model.width=1,3", "--seeds=0,1", "--at-once=4")
    assert main(words(there, *options)) == 1
    names = [f"rate={r},model.width={w},seed={s}" for r in (0.5, 2.0) for w in (1, 3) for s in (0, 1)]
    assert starts(there) == sorted(names)
    printed = capsys.readouterr().out
    assert "8 of 8, 4 not finished" in printed and "failed: error: rate 2.0 is too large" in printed
    rows = [json.loads(line) for line in (there / "sweep" / "table.jsonl").read_text().splitlines()]
    assert [row["cell"] for row in rows] == names
    assert [row["state"] for row in rows] == ["finished"] * 4 + ["failed"] * 4
    assert [row["results"].get("train/loss") for row in rows[:4]] == [0.5, 0.51, 1.5, 1.51]
    (there / "mended").touch()
    (there / "starts").unlink()
    assert main(words(there, *options)) == 0
    assert starts(there) == sorted(names[4:]), "finished cells are done again"
    assert "4 of 8 cells are finished already" in capsys.readouterr().out
    lines = (there / "sweep" / "table.md").read_text().splitlines()
    assert lines[0] == "| rate | model.width | seed | state | seconds | train/loss | message |"
    assert lines[2].startswith("| 0.5 | 1 | 0 | finished |") and lines[2].endswith("| 0.5 |  |")
    assert lines[-1] == "| 2.0 | 3 | 2 | 6.005 ± 0.0071 |"
    assert main(words(there, *options[:-1], way="table")) == 0
    assert "| 2.0 | 3 | 1 | finished |" in capsys.readouterr().out


def test_a_killed_sweep_goes_on_and_starts_nothing_twice(there):
    (there / "wait").touch()
    options = ("--grid", "rate=0.1,0.2")
    launcher = subprocess.Popen([sys.executable, "-m", "tools.launch", *words(there, *options)], cwd=ROOT)
    wait_for(lambda: starts(there))
    launcher.kill()
    launcher.wait()
    cell = there / "sweep" / "cells" / "rate=0.1"
    assert outcome(cell) == {"state": "running", "message": ""}
    threading.Timer(2, (there / "go").touch).start()
    assert main(words(there, *options)) == 0
    assert starts(there) == ["rate=0.1", "rate=0.2"], "the cell that went on alone was started again"


def test_an_interrupted_sweep_stops_its_jobs(there):
    (there / "wait").touch()
    options = ("--grid", "rate=0.1,0.2")
    launcher = subprocess.Popen([sys.executable, "-m", "tools.launch", *words(there, *options)], cwd=ROOT)
    wait_for(lambda: starts(there))
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(LIMIT) == 130
    wait_for(lambda: not task.is_running(there / "sweep" / "cells" / "rate=0.1"))
    assert starts(there) == ["rate=0.1"]
    (there / "go").touch()
    assert main(words(there, *options)) == 0
    assert starts(there) == ["rate=0.1", "rate=0.1", "rate=0.2"]


JOINED = """
import json, pathlib, sys
from research.core import hosts
hosts.join()
import jax
try:
    hosts.agree("config", {"a": {"b": 1}, "c": jax.process_index() if "differ" in sys.argv else 0})
except ValueError as error:
    sys.exit(f"error: {error}")
folder = pathlib.Path(sys.argv[-1].removeprefix("--workdir="))
folder.mkdir(parents=True, exist_ok=True)
(folder / f"{jax.process_index()}.json").write_text(json.dumps([jax.process_count(), jax.device_count()]))
hosts.meet("end")
"""


def test_two_processes_of_a_job_find_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", "")
    (tmp_path / "joined.py").write_text(JOINED)
    command = [sys.executable, str(tmp_path / "joined.py")]
    assert main(["local", f"--folder={tmp_path / 'two'}", "--processes=2", "--", *command]) == 0
    run = tmp_path / "two" / "cells" / "run" / "run"
    assert [json.loads((run / f"{i}.json").read_text()) for i in range(2)] == [[2, 2], [2, 2]]
    assert main(["local", f"--folder={tmp_path / 'other'}", "--processes=2", "--", *command, "differ"]) == 1
    found = outcome(tmp_path / "other" / "cells" / "run")
    told = "error: the hosts disagree on the config: c is 0 on host 0 and 1 on host 1; start all with the same"
    assert (found["state"], found["message"]) == ("failed", told)


def test_the_variables_are_those_that_are_read():
    assert (manifest.ADDRESS, manifest.COUNT, manifest.INDEX) == (hosts.ADDRESS, hosts.COUNT, hosts.INDEX)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--grid", "rte=1,2"), "the config has no setting 'rte', did you mean 'rate'?"),
        (("--grid", "rate"), "--grid takes setting=value,value,...; given 'rate'"),
        (("--grid", "rate=1,1"), "--grid rate has a value twice"),
        (("--grid", "rate=1", "--grid", "config.rate=2"), "--grid has 'rate' twice"),
        (("--seeds=1,1",), "--seeds has a seed twice"),
        (("--grid", "seed=1", "--seeds=1"), "the seed is in --grid and in --seeds"),
        (("--at-once=0",), "--at-once must be at least 1, given 0"),
        (("--processes=0",), "a job needs at least one process"),
        (("--gpus-per-node=2", "--at-once=2"), "jobs at once on one machine would share its GPUs"),
        (("--gpus-per-node=4", "--processes=2"), "each drives one GPU: --processes=2 for 4 GPUs"),
    ],
    ids=str,
)
def test_what_cannot_be_started_is_one_line(there, capsys, options, message):
    assert main(words(there, *options)) == 2
    printed = capsys.readouterr().out
    assert printed.startswith("error: ") and message in printed and printed.count("\n") == 1
    assert starts(there) == []


def test_a_folder_of_another_sweep_is_refused(there, capsys):
    (there / "mended").touch()
    assert main(words(there, "--grid", "rate=0.1")) == 0
    capsys.readouterr()
    other = words(there, "--grid", "rate=0.1")
    for changed, message in (
        ([*other, "--config.offset=2"], "is a sweep of another command: "),
        (words(there, "--grid", "rate=0.1", "--seeds=1"), "is a sweep of another settings: ['rate'], now"),
        ([*other, "--workdir=x"], "--workdir is chosen here"),
        (other[: other.index("--")], "there is no command"),
        ([*other[:-1], "--config=none.py"], "there is no config file 'none.py'"),
    ):
        assert main(changed) == 2
        assert message in capsys.readouterr().out
    (there / "config.py").write_text(CONFIG.replace('"offset": 0', '"offset": 3'))
    assert main(other) == 2
    assert "is a sweep of another config: offset 0 then, 3 now" in capsys.readouterr().out
    (there / "full").mkdir()
    (there / "full" / "a").touch()
    assert main(["local", f"--folder={there / 'full'}", "--", "true"]) == 2
    assert "is not empty and no sweep" in capsys.readouterr().out


def test_how_a_command_tells_that_it_failed(tmp_path):
    assert task.told(["a", "error: b", "c", ""], 2) == "error: b"
    assert task.told(["Traceback", "ValueError: x"], 1) == "ValueError: x"
    assert task.told([], 3) == "exit code 3"
    assert task.told(["step 3"], -9) == "killed by SIGKILL"
    for i, message in enumerate(["error: host 0 of 2: stopped, most likely because another host ended", "error: b"]):
        said = {"state": "failed", "message": message, "seconds": 1.0, "tasks": 2}
        task.write(tmp_path / f"outcome-{i}.json", said)
    assert outcome(tmp_path)["message"] == "error: b"
    assert not task.is_running(tmp_path)
