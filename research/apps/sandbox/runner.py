"""Programs nobody here wrote, each in a sandbox of its own."""

import contextlib
import functools
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

from research.core.names import meant

from .levels import LEVELS, SCRATCH, command, installed_packages, standard_library


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
      cpu: seconds of processor time, of all threads. memory: bytes of addresses. wall: seconds from start to end.
      output: bytes it may print, and as many of errors. disk: bytes of the scratch folder and so of any file.
      processes: threads; at the level "unsafe" processes as well, of all programs of the user together.
    """

    cpu: int = 5
    memory: int = 512 * 2**20
    wall: float = 10.0
    output: int = 2**20
    disk: int = 8 * 2**20
    processes: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"limit {field.name}={value!r}: expected a number above 0")
            if field.name != "wall" and not isinstance(value, int):
                raise ValueError(f"limit {field.name}={value!r}: expected a whole number")


class Result(NamedTuple):
    """What became of a program.

    Attributes:
      ok: it ran to its end; an exit before it, by `exit(0)` as well, is an error.
      output: what it printed. error: its traceback, or the limit it ran into; "" if ok. Both are the program's words.
      seconds: from start to end. level: the isolation it ran in.
    """

    ok: bool
    output: str
    error: str
    seconds: float
    level: str


class Isolation(NamedTuple):
    """The best level that this machine gives, and what keeps it from a better one ("" if none is)."""

    level: str
    reason: str


class NoSandboxError(OSError):
    """The machine gives less isolation than was demanded."""


@functools.cache
def isolation() -> Isolation:
    """Which of `LEVELS` this machine gives, found by running a program in each from the best down."""
    reasons: list[str] = []
    for level in LEVELS[:0:-1]:
        try:
            if sys.platform != "linux":
                raise OSError(f"needs Linux, this is {sys.platform}")
            result = run_at(level, "print(6 * 7)", Limits(wall=60), {})
        except (OSError, subprocess.SubprocessError) as error:
            result = Result(False, "", str(error), 0.0, level)
        if result.ok and result.output == "42\n":
            return Isolation(level, "; ".join(reasons))
        reasons.append(f"{level}: {result.error.strip()}")
    return Isolation("unsafe", "; ".join(reasons))


def require(level: str) -> str:
    """The level at which this machine runs programs, which is at least this one.

    Raises:
      ValueError: an unknown level.
      NoSandboxError: the machine gives less.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}{meant(level, LEVELS)}; have {list(LEVELS)}")
    given = isolation()
    if LEVELS.index(given.level) < LEVELS.index(level):
        raise NoSandboxError(
            f"programs are to run at least at level {level!r}; this machine gives {given.level!r} ({given.reason})"
        )
    return given.level


def run(
    program: str,
    *,
    limits: Limits = Limits(),
    level: str = "bubblewrap",
    files: Mapping[str, str] = MappingProxyType({}),
) -> Result:
    """Runs a Python program (standard library only) in the best isolation of this machine.

    It sees no environment, no network, no other process, no file but the standard library, read-only, and those in its
    working folder, which ends with it. May be called from several threads.

    Args:
      level: the least of `LEVELS` that will do; "unsafe" runs also where the machine gives no isolation.
      files: relative path -> text, put into the working folder.

    Raises:
      ValueError: an unknown level, or a path that is absolute or leads out of the folder.
      NoSandboxError: the machine gives less than `level`.
    """
    given = require(level)
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in name:
            raise ValueError(f"file {name!r}: expected a relative path inside the working folder")
    return run_at(given, program, limits, files)


def run_at(level: str, program: str, limits: Limits, files: Mapping[str, str]) -> Result:
    """Runs a program at exactly this level.

    Raises:
      OSError: bubblewrap is not installed, or no process can be started.
    """
    start = time.monotonic()
    with _scratch(level) as scratch:
        request = {
            "program": program,
            "files": dict(files),
            "level": level,
            "limits": _resources(limits),
            "visible": standard_library() if level != "unsafe" else {},
            "hidden": installed_packages() if level != "unsafe" else [],
            "scratch": scratch,
            "parent": os.getpid(),
        }
        process = subprocess.Popen(
            command(level, limits.disk),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            start_new_session=True,
        )
        try:
            text = json.dumps(request).encode()  # ASCII, so that no half of a character is lost on the way
            with contextlib.suppress(BrokenPipeError), process.stdin:  # type: ignore[union-attr]
                process.stdin.write(text)  # type: ignore[union-attr]
            printed, reason = _read(process, limits, start + limits.wall)
        finally:
            if level == "namespaces":
                process.terminate()  # ends its child and waits for it, so that no zombie is left
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            for pipe in (process.stdout, process.stderr):
                pipe.close()  # type: ignore[union-attr]
    output, error = (bytes(part).decode("utf-8", "replace") for part in printed)
    reason = reason or _ended(code, limits)
    if code and not (reason or error.strip()):
        reason = f"ended with exit code {code}"
    ok = not (code or reason)
    return Result(ok, output, "" if ok else f"{error}{reason}".strip(), time.monotonic() - start, level)


@contextlib.contextmanager
def _scratch(level: str) -> Iterator[str]:
    """The working folder; but for the level "unsafe" it is in memory and ends with the program's namespace."""
    if level != "unsafe":
        yield SCRATCH
    else:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            yield folder


def _resources(limits: Limits) -> dict[str, int]:
    return {
        "RLIMIT_CPU": limits.cpu,
        "RLIMIT_AS": limits.memory,
        "RLIMIT_FSIZE": limits.disk,
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
    }


def _read(process: subprocess.Popen[bytes], limits: Limits, deadline: float) -> tuple[list[bytearray], str]:
    """What it writes to its output and errors until both end, and the limit that ended it before ("" if none)."""
    kept = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe in kept:
            selector.register(pipe, selectors.EVENT_READ)  # type: ignore[arg-type]
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return list(kept.values()), f"killed: more than {limits.wall:g} s from start to end"
            for key, _ in selector.select(left):
                data, part = os.read(key.fd, 2**16), kept[key.fileobj]  # type: ignore[index]
                part += data
                if not data:
                    selector.unregister(key.fileobj)
                elif len(part) > limits.output:
                    del part[limits.output :]
                    return list(kept.values()), f"killed: more than {limits.output} bytes of output"
    return list(kept.values()), ""


def _ended(code: int, limits: Limits) -> str:
    """How a signal ended it; "" if none did."""
    number = -code if code < 0 else code - 128
    if number == signal.SIGKILL:
        return f"killed: more than {limits.cpu} s of processor time, or no memory left"
    known = {one.value: one.name for one in signal.Signals}
    return f"killed by {known[number]}" if number in known else ""
