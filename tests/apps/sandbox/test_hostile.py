"""Programs that try to get out of the sandbox: none does, and none leaves anything behind."""

import ctypes
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from research.apps.sandbox import LEVELS, Limits
from research.apps.sandbox.runner import Result, run_at
from tests.apps.sandbox.hostile import HARMLESS, NAMESPACES_ONLY, PROGRAMS

SECRET = "a canary that nobody may hear"
SUBREAPER = 36  # of prctl: processes without a parent become this one's children


@dataclass
class World:
    """What the programs are after."""

    folder: Path
    nonce: str
    target: subprocess.Popen
    listeners: list[socket.socket]

    def filled(self, program: str) -> str:
        names = {
            "CANARY": str(self.folder),
            "NONCE": self.nonce,
            "TARGET": str(self.target.pid),
            "PORT": str(self.listeners[0].getsockname()[1]),
            "HOST": os.uname().nodename,
        }
        return re.sub(r"\b(CANARY|NONCE|TARGET|PORT|HOST)\b", lambda found: names[found.group()], program)

    def run(self, level: str, name: str) -> Result:
        program, _, limits = PROGRAMS[name]
        return run_at(level, self.filled(program), Limits(**{"cpu": 1, "wall": 30, **limits}), {})


def children() -> dict[str, str]:
    """Process -> its state, of all that this one would have to wait for."""
    pids = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    return {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids}


def describe(pid: str) -> str:
    return Path(f"/proc/{pid}/status").read_text()[:100] + Path(f"/proc/{pid}/cmdline").read_text()[:200]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    if sys.platform != "linux":
        pytest.skip("sandboxes need Linux")
    folder = tmp_path_factory.mktemp("canary")
    (folder / "secret.txt").write_text(SECRET)
    (folder / "canary.py").write_text("print('ESCAPED')")
    nonce = f"lifecycle-{uuid.uuid4().hex}"
    addresses = [
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_UNIX, str(folder / "socket")),
        (socket.AF_UNIX, f"\0{nonce}"),
    ]
    listeners = [socket.socket(family) for family, _ in addresses]
    for listener, (_, address) in zip(listeners, addresses, strict=True):
        listener.bind(address)
        listener.listen()
        listener.settimeout(0)
    target = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
    yield World(folder, nonce, target, listeners)
    target.kill()
    target.wait()
    for listener in listeners:
        listener.close()


@pytest.fixture(scope="module", params=LEVELS[:0:-1])
def ended(request, world):
    """Every program's result, run side by side with a secret in this process's environment and an open handle."""
    level = request.param
    try:
        probe = run_at(level, "print(1)", Limits(wall=60), {})
    except OSError as error:
        pytest.skip(str(error))
    if not probe.ok:
        pytest.skip(f"this machine gives no sandbox of level {level}: {probe.error}")
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    handle = os.open(world.folder / "secret.txt", os.O_RDONLY)
    os.set_inheritable(handle, True)
    os.environ["LIFECYCLE_CANARY"] = SECRET
    try:
        with ThreadPoolExecutor(8) as pool:
            yield dict(zip(PROGRAMS, pool.map(lambda name: world.run(level, name), PROGRAMS), strict=True))
    finally:
        del os.environ["LIFECYCLE_CANARY"]
        os.close(handle)
        ctypes.CDLL(None).prctl(SUBREAPER, 0, 0, 0, 0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_contained(ended, name):
    result, expected = ended[name], PROGRAMS[name][1]
    if name in NAMESPACES_ONLY and result.level != "namespaces":
        pytest.skip(f"{result.level} does not forbid it")
    said = result.output + result.error
    assert "ESCAPED" not in result.output and SECRET not in said
    assert re.search(expected, said[-4000:], re.DOTALL), said[-1000:]
    assert result.ok == (not result.error)


def test_nothing_is_left(ended, world):
    assert world.target.poll() is None
    assert sorted(path.name for path in world.folder.iterdir()) == ["canary.py", "secret.txt", "socket"]
    assert (world.folder / "secret.txt").read_text() == SECRET
    for folder in ("/", "/tmp", "/var/tmp", "/dev/shm", world.folder.parent):
        assert not (Path(folder) / world.nonce).exists()
    for listener in world.listeners:
        with pytest.raises(BlockingIOError):
            listener.accept()
    # bubblewrap, killed, leaves its children to the kernel to end and to whoever adopts them to wait for.
    kept, deadline = "Z" if ended["sleep"].level == "bubblewrap" else "", time.monotonic() + 5
    while left := {pid for pid, state in children().items() if state != kept} - {str(world.target.pid)}:
        assert time.monotonic() < deadline, f"outlived their sandbox: {[describe(pid) for pid in left]}"
        time.sleep(0.05)
    mounts = Path("/proc/self/mountinfo").read_text()
    assert "/scratch" not in mounts, "a mount reached this machine"


@pytest.mark.parametrize("name", HARMLESS)
def test_without_a_sandbox_it_reaches_what_it_tries(world, name):
    assert "ESCAPED" in world.run("unsafe", name).output
