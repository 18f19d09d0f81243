"""Host memory that is freed stays with the process, so that the next step finds it warm."""

import ctypes
import sys

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
