"""Freed memory stays with the process."""

import subprocess
import sys

import pytest

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
