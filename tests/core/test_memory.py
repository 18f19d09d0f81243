"""Freed memory stays with the process; how much a device has for us."""

import os
import subprocess
import sys

import jax
import pytest

from research.core import memory

PROGRAM = """
import resource
import sys

import numpy as np

from research.core import memory

if sys.argv[1] == "keep" and not memory.keep_freed():
    sys.exit(7)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**24)
start = faults()
for _ in range(4):
    np.ones(2**24)
print(faults() - start)
"""


def faults(mode: str) -> int:
    """Page faults of four arrays of 128 MiB, made and dropped after a first one."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True)
    if done.returncode == 7:
        pytest.skip("this system has no glibc: its allocator cannot be told to keep memory")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_large_arrays_are_made_again_in_the_memory_of_the_ones_before():
    kept = faults("keep")
    assert kept < 100
    assert kept < faults("leave") / 2


def test_memory_that_a_device_has_for_us():
    class Gpu:
        platform = "gpu"

        def __init__(self, stats):
            self.memory_stats = lambda: stats

    assert memory.available(Gpu({"bytes_limit": 100, "bytes_in_use": 30})) == 70
    assert memory.available(Gpu(None)) is None
    if sys.platform.startswith("linux"):
        free = memory.available(jax.devices("cpu")[0])
        assert 0 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
