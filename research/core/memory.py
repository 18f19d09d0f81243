"""How much memory a device has for us; and host memory that is freed stays with the process, warm for the next step."""

import ctypes
import sys
from pathlib import Path
from typing import Any

# Parameters of `mallopt`, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed() -> bool:
    """Tells glibc's allocator to keep what is freed; returns whether it could be told.

    By default a large block goes back to the system as soon as it is freed, and a training step on a CPU, whose
    buffers are hundreds of megabytes, spends up to half of its time on page faults and on clearing fresh pages
    (LOG.md has the figures). One arena, because only the main one can hold large blocks. Call it before anything
    is computed; memory once used stays in use. Elsewhere than on Linux with glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # -1 disables trimming; with no mappings allowed, large blocks come from the heap as well.
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    return all(mallopt(parameter, value) for parameter, value in settings)


def available(device: Any) -> int | None:
    """Bytes that a program may use on a device: its own limit, or on a CPU what the machine has left; None: unknown."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    meminfo = Path("/proc/meminfo")
    if device.platform != "cpu" or not meminfo.is_file():
        return None
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in meminfo.read_text().splitlines()}
    return kilobytes["MemAvailable"] * 1024
