"""What comes back from the sandbox, which isolation a machine gives, and what of the kernel is left to a program."""

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from research.apps.sandbox import LEVELS, Isolation, Limits, NoSandboxError, isolation, levels, run, runner
from research.apps.sandbox.inside import seccomp

needs_isolation = pytest.mark.skipif(isolation().level == "unsafe", reason=isolation().reason)
ROOT = Path(__file__).resolve().parents[3]


@needs_isolation
def test_output_error_and_level_come_back():
    result = run("print('ü', 6 * 7)\nimport sys; sys.stderr.write('noted')")
    assert (result.ok, result.output, result.error, result.level) == (True, "ü 42\n", "", isolation().level)
    assert 0 < result.seconds < Limits().wall
    broken = run("def f(x):\n    return 1 / x\nprint('before')\nf(0)")
    assert not broken.ok and broken.output == "before\n"
    # The lines of the program, none of the sandbox's.
    assert re.findall(r'File "(.*?)", line (\d+)', broken.error) == [("program.py", "4"), ("program.py", "2")]
    assert broken.error.endswith("ZeroDivisionError: division by zero")


@needs_isolation
@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("x = (", "SyntaxError: '(' was never closed"),
        ("exit(0)", "SystemExit: 0"),
        ("raise SystemExit", "SystemExit"),
        ("import os; os._exit(3)", "ended with exit code 3"),
        ("import os; os.close(1); os.close(2); os._exit(3)", "ended with exit code 3"),
        ("nothing", "NameError: name 'nothing' is not defined"),
        ("print('\\ud800')", "UnicodeEncodeError"),
        ("\0", "null bytes"),
    ],
)
def test_what_does_not_reach_its_end_is_an_error(program, error):
    result = run(program)
    assert not result.ok and error in result.error


@needs_isolation
def test_ordinary_programs_run():
    """The whole standard library can be imported but for what needs what is not there, and threads and files work."""
    program = """
import asyncio.base_events, bz2, csv, ctypes, dataclasses, datetime, decimal, fractions, hashlib, heapq, io, itertools
import json, lzma, math, random, re, sqlite3, statistics, string, struct, sys, tempfile, threading, typing, zlib
from concurrent.futures import ThreadPoolExecutor

@dataclasses.dataclass
class Point:
    x: int

with open("made.txt", "w") as file:
    file.write("text")
with tempfile.TemporaryFile() as file, ThreadPoolExecutor(4) as pool:
    file.write(b"x")
    squares = list(pool.map(lambda n: n * n, range(5)))
database = sqlite3.connect("numbers.db")
database.execute("create table t (n)")
assert __name__ == "__main__" and sys.argv == ["program.py"] and sys.stdin.read() == ""
print(open("made.txt").read(), squares, Point(3), hashlib.sha256(b"").hexdigest()[:8], datetime.date(2024, 2, 29))
"""
    result = run(program)
    assert result.error == ""
    assert result.output == "text [0, 1, 4, 9, 16] Point(x=3) e3b0c442 2024-02-29\n"


@needs_isolation
def test_files_are_given_and_end_with_the_program():
    program = "import os; print(sorted(os.listdir()), open('a/b.txt').read()); open('left', 'w')"
    for _ in range(2):
        assert run(program, files={"a/b.txt": "häy"}).output == "['a', 'program.py'] häy\n"


def test_unsafe_runs_anywhere_and_removes_its_folder():
    result = runner.run_at("unsafe", "import os; print(os.getcwd()); open('left', 'w')", Limits(), {"b": ""})
    assert result.ok and not Path(result.output.strip()).exists()


@needs_isolation
def test_limits_are_those_that_were_given():
    assert run("x = bytearray(200 << 20)").ok
    assert "MemoryError" in run("x = bytearray(200 << 20)", limits=Limits(memory=150 << 20)).error
    assert run("print('x' * 99)", limits=Limits(output=100)).ok
    long = run("print('x' * 100)", limits=Limits(output=100))
    assert (long.ok, long.output, long.error) == (False, "x" * 100, "killed: more than 100 bytes of output")
    threads = "import threading, time\nfor _ in range(3): threading.Thread(target=time.sleep, args=(0.1,)).start()"
    assert run(threads, limits=Limits(processes=4)).ok
    assert "can't start new thread" in run(threads, limits=Limits(processes=3)).error
    assert "Errno 27" in run("open('a', 'wb').write(bytes(5000))", limits=Limits(disk=4096)).error.replace("28", "27")


@needs_isolation
def test_side_by_side_each_gets_its_own():
    """Among them one that forges the success and the output of another."""
    forger = "import os\nfor fd in range(64):\n  try: os.write(fd, b'7\\n')\n  except OSError: pass\nos._exit(0)"
    programs = [f"print({i})" if i % 4 else forger for i in range(24)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(run, programs))
    assert [r.output for i, r in enumerate(results) if i % 4] == [f"{i}\n" for i in range(24) if i % 4]
    assert all(r.ok for i, r in enumerate(results) if i % 4)


@needs_isolation
def test_a_program_ends_with_whoever_runs_it():
    """Also if that is killed: nothing is left to clean up after it."""
    code = "from research.apps.sandbox import run\nrun('while True: pass')"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    found: list[str] = []
    deadline = time.monotonic() + 20
    while not found and time.monotonic() < deadline:
        time.sleep(0.05)
        found = below(str(parent.pid))
    parent.kill()
    parent.wait()
    assert found
    while alive := [pid for pid in found if runs(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.02)


def below(pid: str) -> list[str]:
    """Sandboxed grandchildren of a process, which run as somebody else or in namespaces of their own."""
    kin = [Path(f"/proc/{child}/task/{child}/children") for child in children(pid)]
    return [grandchild for path in kin if path.exists() for grandchild in path.read_text().split()]


def runs(pid: str) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


def children(pid: str) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_machine_that_gives_less_is_refused(monkeypatch):
    reason = "namespaces: unshare: Operation not permitted; bubblewrap: bubblewrap (bwrap) is not installed"
    monkeypatch.setattr(runner, "isolation", lambda: Isolation("unsafe", reason))
    for level in LEVELS[1:]:
        with pytest.raises(
            NoSandboxError, match=rf"at least at level '{level}'; this machine gives 'unsafe' \({reason[:9]}"
        ):
            run("print(1)", level=level)
    with pytest.raises(NoSandboxError):
        run("print(1)")
    assert run("print(1)", level="unsafe").level == "unsafe"
    monkeypatch.setattr(runner, "isolation", lambda: Isolation("bubblewrap", reason[:40]))
    with pytest.raises(NoSandboxError, match="this machine gives 'bubblewrap'"):
        run("print(1)", level="namespaces")


def test_isolation_is_what_was_seen_to_work(monkeypatch):
    isolation.cache_clear()
    monkeypatch.setattr(levels.shutil, "which", lambda name: None)
    tried = []
    real = runner.run_at

    def failing(level, *rest):
        tried.append(level)
        return real(level, *rest) if level == "bubblewrap" else runner.Result(False, "", "unshare: no", 0.0, level)

    monkeypatch.setattr(runner, "run_at", failing)
    given = isolation()
    isolation.cache_clear()
    if sys.platform == "linux":
        assert tried == ["namespaces", "bubblewrap"]
        assert given == ("unsafe", "namespaces: unshare: no; bubblewrap: bubblewrap (bwrap) is not installed")
    else:
        assert given.level == "unsafe" and "needs Linux" in given.reason


LAYERS = {
    "landlock": (
        "call('prctl', 38, 1, 0, 0, 0); landlock.restrict([os.path.dirname(os.__file__)], '.')",
        "open('inside', 'w'); import colorsys; os.listdir('/')",
        r"PermissionError: \[Errno 13\] Permission denied: '/'",
    ),
    "seccomp": (
        "call('prctl', 38, 1, 0, 0, 0); seccomp.restrict(seccomp.program(os.uname().machine))",
        "os.listdir('/'); os.fork()",
        r"PermissionError: \[Errno 1\]",
    ),
    "namespaces": (
        "namespaces.separate(); namespaces.new_root({}, [], '/scratch', 9999, 9); sandboxed._fork()",
        "assert (os.getpid(), os.listdir('/'), os.getuid() > 0) == (1, ['scratch'], True); open('inside', 'w')\n"
        "open('/outside', 'w')",
        r"OSError: \[Errno 30\] Read-only file system: '/outside'",
    ),
}


@pytest.mark.skipif(isolation().level != "namespaces", reason=isolation().reason)
@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_holds_without_the_others(layer, tmp_path):
    enter, program, error = LAYERS[layer]
    folder = str(Path(levels.__file__).parent)
    code = (
        f"import os, sys; sys.path.insert(0, {folder!r})\nfrom inside import landlock, namespaces, sandboxed, seccomp\n"
    )
    code += f"from inside.system import call\n{enter}\n{program}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert re.search(error, done.stderr), done.stderr


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_numbers_are_those_of_the_kernel_headers(machine, header):
    if not Path(header).exists():
        pytest.skip(f"no {header}")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text())
    numbers = {name: int(number) for name, number in found}
    numbers |= {"newfstatat": numbers.get("newfstatat", numbers.get("fstatat"))}
    allowed = seccomp.table(machine)
    assert allowed == {name: numbers[name] for name in allowed}
    assert not set(allowed) & {
        "fork",
        "vfork",
        "execve",
        "socket",
        "kill",
        "mount",
        "unshare",
        "ptrace",
        "symlink",
        "bpf",
    }


def answer(code: bytes, machine: int, number: int, *arguments: int) -> int:
    """What a filter returns: a plain interpreter of the four operations that it uses."""
    data = number.to_bytes(4, "little") + machine.to_bytes(4, "little") + bytes(8)
    data += b"".join((a % 2**64).to_bytes(8, "little") for a in (*arguments, *[0] * (6 - len(arguments))))
    lines = [code[i : i + 8] for i in range(0, len(code), 8)]
    at, register = 0, 0
    while True:
        operation, yes, no = int.from_bytes(lines[at][:2], "little"), lines[at][2], lines[at][3]
        value = int.from_bytes(lines[at][4:], "little")
        at += 1
        if operation == 0x06:
            return value
        if operation == 0x20:
            register = int.from_bytes(data[value : value + 4], "little")
        elif operation == 0x54:
            register &= value
        else:
            assert operation == 0x15
            at += yes if register == value else no


@pytest.mark.parametrize(("machine", "audit"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_the_filter_answers_for_every_number(machine, audit):
    code, allowed = seccomp.program(machine), set(seccomp.table(machine).values())
    special = {"x86_64": (56, 435, 16, 302), "aarch64": (220, 435, 29, 261)}[machine]
    for number in range(600):
        if number not in special:
            assert answer(code, audit, number) == (0x7FFF0000 if number in allowed else 0x50001), number
    clone, clone3, ioctl, prlimit = special
    allow, deny = 0x7FFF0000, 0x50001
    assert answer(code, audit, clone, 0x3D0F00) == allow  # what pthread_create asks for
    for flags in (17, 0x4111, 0x10000000, 0x3D0F00 | 0x10000000, 0x10000 | 0x20000, 0x10080):
        assert answer(code, audit, clone, flags) == deny
    assert answer(code, audit, clone3) == 0x50026
    assert (answer(code, audit, ioctl, 1, 0x5401), answer(code, audit, ioctl, 1, 0x5412)) == (allow, deny)
    assert answer(code, audit, prlimit, 0, 7, 0) == allow
    assert answer(code, audit, prlimit, 0, 7, 1) == answer(code, audit, prlimit, 0, 7, 1 << 32) == deny
    assert answer(code, 0x40000003, 1) == 0x80000000  # the 32-bit interface: the process ends


def test_a_machine_without_a_table_is_refused():
    with pytest.raises(OSError, match=r"no table of system calls for 'riscv64'; have \['aarch64', 'x86_64'\]"):
        seccomp.program("riscv64")
