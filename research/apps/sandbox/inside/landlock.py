"""Landlock: the kernel refuses files that are not named here, whatever their permissions, and signals to others.

See https://docs.kernel.org/userspace-api/landlock.html; the numbers are the same on every machine.
"""

import ctypes
import os
import struct
from collections.abc import Iterable

from .system import kernel

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION, _BENEATH = 1, 1
_WRITE, _READ, _LIST = 1 << 1, 1 << 2, 1 << 3
_REMOVE_FOLDER, _REMOVE_FILE, _MAKE_FOLDER, _MAKE_FILE, _REFER, _TRUNCATE = (1 << n for n in (4, 5, 7, 8, 13, 14))
# How many rights over files each version of the interface knows.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}


def available() -> bool:
    """Whether this kernel has Landlock."""
    try:
        return _version() > 0
    except OSError:
        return False


def restrict(readable: Iterable[str], writable: str) -> None:
    """Leaves this thread what lies beneath these paths; needs no_new_privs.

    No TCP (version 4), no signal and no abstract socket to a process outside (version 6).

    Raises:
      OSError: a kernel without Landlock, or a missing path.
    """
    abi = _version()
    handled = (1 << _RIGHTS.get(abi, 16)) - 1
    attributes = struct.pack("QQQ", handled, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8  # an older kernel refuses what it does not know
    rules = kernel("landlock_create_ruleset", _CREATE, ctypes.create_string_buffer(attributes), size, 0)
    for path in readable:
        _allow(rules, path, _READ | _LIST if os.path.isdir(path) else _READ)
    full = _WRITE | _READ | _LIST | _REMOVE_FOLDER | _REMOVE_FILE | _MAKE_FOLDER | _MAKE_FILE | _REFER | _TRUNCATE
    _allow(rules, writable, full & handled)
    kernel("landlock_restrict_self", _RESTRICT, rules, 0)
    os.close(rules)


def _version() -> int:
    return kernel("landlock_create_ruleset", _CREATE, None, 0, _VERSION)


def _allow(rules: int, path: str, rights: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, handle)
        kernel("landlock_add_rule", _ADD, rules, _BENEATH, ctypes.create_string_buffer(rule), 0)
    finally:
        os.close(handle)
