"""Several processes that run one program: joining, agreeing, going first, stopping together.

Every process (a "host") runs the same command; `jax.distributed` makes their devices one list. What concerns a single
process alone (a mistyped file, a signal, a lost neighbour) has to be told to all, or the others wait for ever.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.core.names import flat

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
SECONDS_UNTIL_LOST = 20  # without a sign of life; the job has to end within a minute
SECONDS_TO_MEET = 20  # at the end: what is left then is a process that failed alone


def join(address: str = "", count: int = 0, index: int = -1) -> None:
    """Makes this process one of `count`; must come before any device is used.

    Empty arguments are read from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, and what these do not
    say is found by `jax.distributed` on SLURM, Kubernetes, Cloud TPU and Open MPI.

    Raises:
      ValueError: a number that is none, or an address, a count or an index that nothing tells.
    """
    address = address or os.environ.get(ADDRESS, "")
    known: dict[str, Any] = {"coordinator_address": address or None}
    for name, given, unset, variable in (
        ("num_processes", count, 0, COUNT),
        ("process_id", index, -1, INDEX),
    ):
        known[name] = given if given != unset else _number(variable)
    number, place = known["num_processes"], known["process_id"]
    if place is not None and number is not None and not 0 <= place < number:
        raise ValueError(f"process {place} of {number}: expected 0 <= process < number of processes")
    if address and not address.rpartition(":")[2].isdigit():
        raise ValueError(f"the coordinator's address {address!r} has no port; expected host:port")
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM, which ends a run in good order here
    try:
        jax.distributed.initialize(
            **known, heartbeat_timeout_seconds=SECONDS_UNTIL_LOST, shutdown_timeout_seconds=SECONDS_TO_MEET
        )
    except ValueError:
        told = f"{ADDRESS}={address!r}, {COUNT}={number}, {INDEX}={place}"
        raise ValueError(
            f"cannot join the other processes: {told}, and no cluster was detected (SLURM, Kubernetes, Cloud TPU, "
            "Open MPI); give --coordinator_address, --num_processes and --process_id or these variables"
        ) from None
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"cannot join the other processes at {address or 'the coordinator'}: {first}") from None


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    if not text:
        return None
    if not text.isdigit():
        raise ValueError(f"{variable} is {text!r}; expected a whole number")
    return int(text)


def several() -> bool:
    """Whether this process is one of several."""
    return jax.distributed.is_initialized() and jax.process_count() > 1  # in this order: no device is looked for


def is_first() -> bool:
    """Whether this is the process that writes what is written once."""
    return not several() or jax.process_index() == 0


def name() -> str:
    """ "host 1 of 4", or nothing where there is one."""
    return f"host {jax.process_index()} of {jax.process_count()}" if several() else ""


def meet(what: str) -> None:
    """Waits for all processes."""
    if several():
        multihost_utils.sync_global_devices(what)


@contextlib.contextmanager
def first_alone(what: str) -> Iterator[None]:
    """The first process does the block before the others do, who then find what it has left in a shared folder."""
    if not is_first():
        meet(what)
    try:
        yield
    finally:
        if is_first():
            meet(what)


def from_first(value: int) -> int:
    """The value that the first process gave."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value))) if several() else value


def agree(what: str, value: Mapping[str, Any]) -> None:
    """Refuses, on all processes, values (JSON) that are not the same on all.

    Raises:
      ValueError: names the keys that differ, with both values.
    """
    if not several():
        return
    mine = json.dumps(value, sort_keys=True, default=str).encode()
    sizes = multihost_utils.process_allgather(np.asarray([len(mine)], np.int32)).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(mine)] = np.frombuffer(mine, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    texts = [bytes(row[:size]) for row, size in zip(rows, sizes, strict=True)]
    for host, text in enumerate(texts):
        if text != texts[0]:
            ours, theirs = flat(json.loads(texts[0])), flat(json.loads(text))
            keys = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
            told = ", ".join(f"{k} is {ours.get(k)!r} on host 0 and {theirs.get(k)!r} on host {host}" for k in keys[:5])
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise ValueError(f"the hosts disagree on the {what}: {told}{more}; start all with the same")


def agree_on_folder(folder: Path) -> None:
    """Refuses, on all processes, a folder that is not one and the same for all: each writes its part of a checkpoint.

    Raises:
      ValueError: names the hosts that do not see what the first one wrote.
    """
    if not several():
        return
    token = multihost_utils.broadcast_one_to_all(np.frombuffer(uuid.uuid4().bytes, np.uint8))
    probe = folder / f".hosts-{bytes(np.asarray(token)).hex()}"
    if is_first():
        probe.touch()
    meet("folder written")
    seen = np.asarray(multihost_utils.process_allgather(np.asarray([probe.exists()]))).reshape(-1)
    if is_first():
        probe.unlink()
    if not seen.all():
        blind = np.flatnonzero(~seen).tolist()
        raise ValueError(f"{folder} is not the same folder on hosts {blind} as on host 0; all write there, so share it")


class AnyHost:
    """Tells every process, one call late and at the same call, that some process has raised its flag.

    A signal reaches processes at different steps, or one of them alone; a process that stopped by itself would leave
    the others waiting in the next step. The answer of the previous call is long there, so nothing waits for it.
    """

    def __init__(self) -> None:
        self._before: jax.Array | None = None
        if several():
            devices = np.asarray(jax.devices())
            mesh = jax.sharding.Mesh(devices, ("host",), axis_types=(AxisType.Auto,))
            self._cut = NamedSharding(mesh, PartitionSpec("host"))
            self._any = jax.jit(lambda flags: flags.any(), out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, flag: bool) -> bool:
        """Whether any process gave True in the call before; alone, whether this one does now."""
        if not several():
            return flag
        mine = np.full(jax.local_device_count(), flag)
        before, shape = self._before, (jax.device_count(),)
        self._before = self._any(jax.make_array_from_process_local_data(self._cut, mine, shape))
        return before is not None and bool(before)
