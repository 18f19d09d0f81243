"""Fixtures that every test may use: where the data is, and one device configuration for all."""

import os
import tempfile
from pathlib import Path

# Eight virtual devices cost single-device tests nothing and let sharding tests run in the same process.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from array_record.python import array_record_module

ROOT = Path(__file__).resolve().parent.parent

# array_record makes its pool of threads on first use and, in a process that has used much memory before, was seen to
# hang there for good (0.8.6); so it is made here, in a fresh one.
with tempfile.TemporaryDirectory() as _folder:
    _path = f"{_folder}/pool.array_record"
    array_record_module.ArrayRecordWriter(_path, "group_size:1").close()
    array_record_module.ArrayRecordReader(_path).close()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of public data sets (README, "Data"); tests that need it skip where it is absent."""
    path = Path(os.environ.get("LIFECYCLE_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no data folder at {path}: set LIFECYCLE_DATA (README, 'Data')")
    return path
