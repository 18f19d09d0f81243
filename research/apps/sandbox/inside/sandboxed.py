"""Shuts this process in, then runs the program that it is given: the one place where text becomes code."""

import builtins
import json
import os
import resource
import select
import signal
import sys

from . import landlock, namespaces, seccomp
from .system import call

_DEATH_SIGNAL, _NO_NEW_PRIVILEGES = 1, 38
_FILES = 1024  # in the scratch folder
PROGRAM = "program.py"


def main() -> None:
    """Reads one JSON object from the standard input, whose parts are the arguments of `_enter`."""
    request = json.load(sys.stdin)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    del sys.path[0]  # of this package
    try:
        _enter(**request)
    except OSError as error:
        sys.exit(f"sandbox: {error}")
    _run(request["program"])


def _enter(
    program: str,
    files: dict[str, str],
    level: str,
    limits: dict[str, int],
    visible: dict[str, str],
    hidden: list[str],
    scratch: str,
    parent: int,
) -> None:
    """Goes behind all that the level has; the seccomp filter, which forbids the other steps, comes last.

    Args:
      limits: of `resource`. visible, hidden, scratch: see `namespaces.new_root`. parent: the process that wants it.
    """
    code = seccomp.program(os.uname().machine) if level != "unsafe" else b""
    if level == "namespaces":
        call("prctl", _DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("sandbox: nobody waits for the program any more")
        namespaces.separate()
        namespaces.new_root(visible, hidden, scratch, limits["RLIMIT_FSIZE"], _FILES)
        _fork()
    elif level == "bubblewrap":
        namespaces.drop(own_user=False)
    os.chdir(scratch)
    for name, text in {**files, PROGRAM: program}.items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "w", encoding="utf-8", errors="surrogatepass") as file:
            file.write(text)
    if code:
        call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        if level == "namespaces" or landlock.available():
            landlock.restrict(visible, scratch)
    for name, value in limits.items():
        most = resource.getrlimit(getattr(resource, name))[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(getattr(resource, name), (value, value))
    if code:
        seccomp.restrict(code)


def _fork() -> None:
    """Goes on as nobody in a child; this process ends as it does, with 128 + n for signal n. SIGTERM ends both."""
    alive, held = os.pipe()
    child = os.fork()
    if child:
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(status if status >= 0 else 128 - status)
    os.close(held)
    namespaces.drop(own_user=True)
    call("prctl", _DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    # Had the other process ended before that call, it would hold the pipe open no more.
    if select.select([alive], [], [], 0)[0]:
        sys.exit("sandbox: nobody waits for the program any more")
    os.close(alive)


def _run(program: str) -> None:
    """Runs it as the main module; an exception, SystemExit included, is printed without the lines of this file."""
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # which come with site packages
    main = type(sys)("__main__")
    sys.modules["__main__"], sys.argv[:] = main, [PROGRAM]
    try:
        exec(compile(program, PROGRAM, "exec"), main.__dict__)
    except BaseException as error:
        trace = error.__traceback__ and error.__traceback__.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        sys.exit(1)
