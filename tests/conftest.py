"""Fixtures that every test may use: where the data is, and one device configuration for all."""

import os
from pathlib import Path

# Eight virtual devices cost single-device tests nothing and let sharding tests run in the same process. Most of a
# test's time is compilation, so machine code is left as it comes: XLA's own passes and kernels stay what they are.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
if "xla_backend_optimization_level" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
# Twice in thousands of tests jaxlib 0.10.2 crashed while it wrote or read a program of the compilation cache, in a
# process that had compiled hundreds; commands have fresh processes, tests do not.
os.environ.setdefault("LIFECYCLE_CACHE", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from research.data import tfds_source

ROOT = Path(__file__).resolve().parent.parent

tfds_source.start_threads()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of public data sets (README, "Data"); tests that need it skip where it is absent."""
    path = Path(os.environ.get("LIFECYCLE_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no data folder at {path}: set LIFECYCLE_DATA (README, 'Data')")
    return path
