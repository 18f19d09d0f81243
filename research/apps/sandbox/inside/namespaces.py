"""Namespaces of one's own: no other user, process, network or host name, and a root of the named files only.

The program's process is the first of its process namespace: the kernel ends whatever else is in it when it ends.
"""

import ctypes
import os
import struct
from collections.abc import Mapping, Sequence

from .system import call, kernel

NOBODY = 65534
_NEW = {"NS": 0x00020000, "UTS": 0x04000000, "IPC": 0x08000000, "PID": 0x20000000, "NET": 0x40000000}
_NEW_USER = 0x10000000
_BIND, _RECURSIVE, _PRIVATE, _NOSUID, _NODEV, _NOEXEC = 4096, 16384, 1 << 18, 2, 4, 8
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _DETACH = 442, -100, 0x8000, 2
_READ_ONLY = 1 | 2 | 4  # of mount_setattr: and no set-user-id bits, and no devices


def separate() -> None:
    """Leaves the namespaces of this process; the process namespace holds from the next fork on.

    Root keeps its user namespace until `drop`, because nobody else may read where its Python lies.

    Raises:
      OSError: the kernel or its administrator forbids it.
    """
    user, group = os.getuid(), os.getgid()
    call("unshare", sum(_NEW.values()) | (_NEW_USER if user else 0))
    call("sethostname", b"sandbox", 7)
    if user:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def new_root(visible: Mapping[str, str], hidden: Sequence[str], scratch: str, size: int, files: int) -> None:
    """Makes a root that holds only these paths, read-only, and an empty folder in memory that ends with the namespace.

    Args:
      visible: where a folder or file is to stand -> where it lies, without symbolic links. hidden: folders in them that
        are to be empty. scratch: the writable folder, of `size` bytes and as many `files`.

    Raises:
      OSError: names the call that failed.
    """
    _mount("none", "/", None, _RECURSIVE | _PRIVATE)
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, "size=1m,nr_inodes=4096,mode=755")
    os.mkdir("/tmp/old")
    kernel("pivot_root", _PIVOT_ROOT[os.uname().machine], b"/tmp", b"/tmp/old")
    os.chdir("/")
    for path, source in visible.items():
        if os.path.isdir("/old" + source):
            os.makedirs(path, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w"):
                pass
        _mount("/old" + source, path, None, _BIND | _RECURSIVE)
    for path in filter(os.path.isdir, hidden):
        _mount("tmpfs", path, "tmpfs", _NOSUID | _NODEV, "size=4k,nr_inodes=1")
    call("umount2", b"/old", _DETACH)
    os.rmdir("/old")
    os.mkdir(scratch)
    attributes = ctypes.create_string_buffer(struct.pack("4Q", _READ_ONLY, 0, 0, 0), 32)
    kernel("mount_setattr", _MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, attributes, 32)
    _mount("tmpfs", scratch, "tmpfs", _NOSUID | _NODEV | _NOEXEC, f"size={size},nr_inodes={files + 1},mode=700")
    if os.getuid() == 0:
        os.chown(scratch, NOBODY, NOBODY)
    os.chdir(scratch)


def drop(*, own_user: bool) -> None:
    """Root becomes nobody, with `own_user` in a user namespace of its own; all capabilities go.

    Raises:
      OSError: the kernel or its administrator forbids it.
    """
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        if own_user:
            call("unshare", _NEW_USER)
    version = struct.pack("Ii", 0x20080522, 0)
    call("capset", ctypes.create_string_buffer(version), ctypes.create_string_buffer(24))


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    try:
        call("mount", os.fsencode(source), os.fsencode(target), kind and kind.encode(), flags, options.encode())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({source} at {target})") from None
