"""How well this machine can shut a program in."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

LEVELS = ("unsafe", "bubblewrap", "namespaces")
"""From the weakest: limits of a process; `bwrap`, seccomp and limits; namespaces, Landlock, seccomp and limits."""

SCRATCH = "/scratch"
_HERE = Path(__file__).resolve().parent
_PYTHON = os.path.realpath(sys.executable)


def python(module: str) -> list[str]:
    """The command that runs `main()` of a module in `inside`, in this Python without site packages."""
    start = f"import sys; sys.path.insert(0, {str(_HERE)!r}); from inside.{module} import main; main()"
    return [_PYTHON, "-I", "-S", "-X", "utf8", "-c", start]


@functools.cache
def standard_library() -> dict[str, str]:
    """Path -> the same without symbolic links, of all folders and files that the standard library is made of."""
    done = subprocess.run(python("libraries"), env={}, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    paths = [path for path in map(os.path.normpath, json.loads(done.stdout)) if os.path.exists(path)]
    folders = tuple(path + "/" for path in paths if os.path.isdir(path))
    return {path: os.path.realpath(path) for path in paths if not path.startswith(folders)}


def installed_packages() -> list[str]:
    """Folders of installed packages inside those of the standard library."""
    return [f"{path}/{name}" for path in standard_library() for name in ("site-packages", "dist-packages")]


def command(level: str, size: int) -> list[str]:
    """What starts the sandbox; `size` is that of the scratch folder."""
    start = python("sandboxed")
    if level != "bubblewrap":
        return start
    found = shutil.which("bwrap")
    if found is None:
        raise FileNotFoundError("bubblewrap (bwrap) is not installed")
    paths = {**standard_library(), **{own: own for own in (_PYTHON, f"{_HERE}/inside")}}
    binds = [word for path, source in paths.items() for word in ("--ro-bind", source, path)]
    # Folders above them, which bubblewrap would otherwise close to all but root where the machine's are closed.
    above = sorted({str(folder) for path in paths for folder in Path(path).parents[:-1]})
    open_ = [word for folder in above for word in ("--perms", "755", "--dir", folder)]
    empty = [word for path in installed_packages() if os.path.isdir(path) for word in ("--tmpfs", path)]
    # Root needs no user namespace to mount, and becomes nobody in `drop`.
    user = "--unshare-user" if os.getuid() else "--cap-add CAP_SETUID --cap-add CAP_SETGID"
    shut = (
        "--unshare-ipc --unshare-net --unshare-pid --unshare-uts --hostname sandbox --die-with-parent --new-session "
        f"--clearenv --cap-drop ALL {user} --dev-bind /dev/null /dev/null"
    ).split()
    scratch = ["--size", str(size), "--perms", "1777", "--tmpfs", SCRATCH]
    return [found, *shut, *open_, *binds, *empty, *scratch, *start]
