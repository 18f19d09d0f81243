"""Calls of the C library and the kernel for which Python has no function."""

import ctypes
import os
from collections.abc import Callable

_LIBRARY = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    """Calls a function of the C library; integers are passed as longs.

    Raises:
      OSError: it returned less than 0; names the function.
    """
    return _result(name, getattr(_LIBRARY, name), arguments)


def kernel(name: str, number: int, *arguments: object) -> int:
    """The same of a system call that has no function in older C libraries."""
    return _result(name, _LIBRARY.syscall, (number, *arguments))


def _result(name: str, function: Callable[..., int], arguments: tuple[object, ...]) -> int:
    result = function(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result
