"""Which rows a host reads, and what joining refuses; real processes: tests/experiments/test_train_hosts.py."""

import itertools
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from research.core import hosts
from research.core.mesh import AXES, BATCH_AXES, host_rows, make_mesh


def mesh_of(sizes, owners):
    """A mesh whose devices, in order, belong to these processes."""
    devices = np.array([SimpleNamespace(process_index=owner) for owner in owners], object)
    shape = tuple(sizes.get(name, 1) for name in AXES)
    return SimpleNamespace(devices=devices.reshape(shape), axis_names=AXES, shape=dict(zip(AXES, shape, strict=True)))


def blocks(mesh, count, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: count)
    found = []
    for host in range(count):
        monkeypatch.setattr(jax, "process_index", lambda host=host: host)
        found.append(host_rows(mesh))
    return found


@pytest.mark.parametrize(
    ("sizes", "owners", "expected"),
    [
        ({"data": 4}, [0, 0, 1, 1], [(0, 2), (1, 2)]),
        ({"fsdp": 4}, [1, 1, 0, 0], [(1, 2), (0, 2)]),
        ({"data": 2, "fsdp": 2}, [0, 1, 2, 3], [(0, 4), (1, 4), (2, 4), (3, 4)]),
        ({"data": 2, "tensor": 2}, [0, 0, 1, 1], [(0, 2), (1, 2)]),
        ({"tensor": 2}, [0, 1], [(0, 1), (0, 1)]),
        ({"data": 2, "tensor": 2}, [0, 1, 2, 3], [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ({"data": 2, "sequence": 4}, [0, 0, 1, 1, 2, 2, 3, 3], [(0, 2), (0, 2), (1, 2), (1, 2)]),
        # A host whose devices are apart, or that holds more than another: all read everything.
        ({"data": 4}, [0, 1, 0, 1], [(0, 1), (0, 1)]),
        ({"data": 4}, [0, 0, 0, 1], [(0, 1), (0, 1)]),
        ({"data": 2, "tensor": 2}, [0, 1, 1, 1], [(0, 1), (0, 1)]),
    ],
    ids=str,
)
def test_hosts_read_the_rows_that_their_devices_hold(monkeypatch, sizes, owners, expected):
    mesh = mesh_of(sizes, owners)
    count = len(expected)
    assert blocks(mesh, count, monkeypatch) == expected
    # By the layout itself: the rows of every device of a host lie in the host's block.
    rows = 8
    parts = int(np.prod([mesh.shape[name] for name in BATCH_AXES]))
    for at in itertools.product(*map(range, mesh.devices.shape)):
        part = at[0] * mesh.shape["fsdp"] + at[1]
        index, of = expected[mesh.devices[at].process_index]
        block = range(index * rows // of, (index + 1) * rows // of)
        assert set(range(part * rows // parts, (part + 1) * rows // parts)) <= set(block)


def test_the_order_of_the_rows_is_that_of_the_layout():
    """What the test above takes for granted of `data` and `fsdp` is what a sharding does."""
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    layout = jax.sharding.NamedSharding(mesh, PartitionSpec(BATCH_AXES))
    for device, (rows,) in layout.devices_indices_map((8,)).items():
        data, fsdp, _, _ = np.argwhere(mesh.devices == device)[0]
        assert range(8)[rows] == range((data * 2 + fsdp) * 2, (data * 2 + fsdp) * 2 + 2)


def test_a_mesh_leaves_no_host_out():
    pool = [SimpleNamespace(process_index=i // 2, platform="cpu") for i in range(4)]
    with pytest.raises(ValueError, match=r"takes 2 of the 4 devices of all hosts; try data = -1"):
        make_mesh({"data": 2}, pool)


@pytest.mark.parametrize(
    ("given", "variables", "message"),
    [
        (("localhost:1", 2, 2), {}, "process 2 of 2: expected 0 <= process < number of processes"),
        (("localhost", 2, 0), {}, "the coordinator's address 'localhost' has no port; expected host:port"),
        ((), {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is 'two'"),
        ((), {"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID is '-1'; expected a whole number"),
        ((), {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "5"}, "process 5 of 2"),
    ],
    ids=str,
)
def test_what_cannot_be_joined_is_refused(monkeypatch, given, variables, message):
    for name in (hosts.ADDRESS, hosts.COUNT, hosts.INDEX):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        hosts.join(*given)


def test_a_process_alone_agrees_with_itself(tmp_path):
    hosts.agree("config", {"a": 1})
    hosts.agree_on_folder(tmp_path)
    with hosts.first_alone("tokenizer"):
        pass
    signalled = hosts.AnyHost()
    assert signalled(True) and not signalled(False)
    assert hosts.is_first() and not hosts.several() and hosts.from_first(7) == 7 and list(tmp_path.iterdir()) == []
