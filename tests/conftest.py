"""Fixtures that every test may use: where the data is, and one device configuration for all."""

import os
from importlib import metadata
from pathlib import Path

# Eight virtual devices cost single-device tests nothing and let sharding tests run in the same process. Most of a
# test's time is compilation, so machine code is left as it comes: XLA's own passes and kernels stay what they are.
# Where XLA still has its older emitters, they write the code of fusions, four times as fast: jaxlib 0.10 does, and
# later ones end at a flag that they do not know.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
if "xla_backend_optimization_level" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
if "xla_cpu_use_fusion_emitters" not in os.environ["XLA_FLAGS"] and metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
# A test compiles what it tests, not what an earlier run left.
os.environ.setdefault("LIFECYCLE_CACHE", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import jax
import pytest

from research.data import tfds_source

ROOT = Path(__file__).resolve().parent.parent
COMPILED = "/jax/core/compile/backend_compile_duration"  # jax's name for one program compiled
MAPS = Path("/proc/self/maps")
MOST_MAPS, LOOK_AFTER = 30_000, 40

tfds_source.start_threads()

programs = 0


def _count(event: str, duration: float, **kwargs) -> None:
    global programs
    programs += event == COMPILED


jax.monitoring.register_event_duration_secs_listener(_count)


def pytest_runtest_teardown() -> None:
    """Drops compiled programs before there are too many.

    Each takes 4 to 30 memory maps, one for eight devices some hundreds. Linux gives a process 65,530 of them, and past
    that XLA ends in a segmentation fault or an abort.
    """
    global programs
    if programs >= LOOK_AFTER and MAPS.is_file():
        programs = 0
        if MAPS.read_bytes().count(b"\n") > MOST_MAPS:
            jax.clear_caches()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of public data sets (README, "Data"); tests that need it skip where it is absent."""
    path = Path(os.environ.get("LIFECYCLE_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no data folder at {path}: set LIFECYCLE_DATA (README, 'Data')")
    return path
