"""A training step compiled for a mesh of devices that are not there: what each would hold, compute and send.

No weight is allocated: shapes come from `jax.eval_shape`, and the devices are virtual ones of the CPU
(XLA_FLAGS=--xla_force_host_platform_device_count), which compile the same partitioned program. What differs from a GPU
or TPU: communication of bfloat16 is in float32, and gradients of cut weights are all-reduced where others
reduce-scatter them, so what is sent is at most twice as much in each case.
"""

import time
from collections import Counter
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding, PartitionSpec

from research.core import mesh as meshes
from research.recipes.assemble import heads
from research.scaling import flops
from research.scaling.collectives import KINDS, Collective, collectives
from research.scaling.memory import Run, Setting
from research.training import state


class DryRun(NamedTuple):
    """What one device has to do in a step.

    Attributes:
      devices: of the mesh. kept: bytes of its state and batch as compiled. step: bytes that the program takes on top.
      flops: of the model's products, its share. sent: bytes by kind of collective, as a ring sends them. times: how
        often each kind runs. seconds: that compiling took.
    """

    devices: int
    kept: int
    step: int
    flops: float
    sent: dict[str, float]
    times: dict[str, int]
    seconds: float


class StepTime(NamedTuple):
    """Seconds of a step: of computing, of sending, and of both one after the other; overlapped it is the longer one."""

    computing: float
    sending: float

    @property
    def apart(self) -> float:
        """Nothing overlaps."""
        return self.computing + self.sending

    @property
    def overlapped(self) -> float:
        """Everything overlaps."""
        return max(self.computing, self.sending)


def dry_run(setting: Setting) -> DryRun:
    """Compiles the update of a setting for its mesh, over the devices of this process.

    Raises:
      ValueError: a mesh that does not fit the devices, or does not divide a weight or the batch.
    """
    start, mesh, run = time.perf_counter(), meshes.make_mesh(setting.mesh), Run.of(setting)
    layouts = state.shardings((run.state, run.frozen), mesh, heads=heads(setting.config))
    begin, frozen = jax.tree.map(_placed, (run.state, run.frozen), layouts)
    batch = jax.tree.map(_placed, run.batch, meshes.batch_shardings(run.batch, mesh))
    out = (layouts[0], NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh):
        lowered = jax.jit(run.update, donate_argnums=0, out_shardings=out).lower(begin, frozen, batch)
        # The program is never run, so its machine code may be bad.
        quick: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
        compiled = lowered.compile(compiler_options=quick)
    used: Any = compiled.memory_analysis()
    found = collectives(compiled.as_text() or "", mesh.size)
    return DryRun(
        devices=mesh.size,
        kept=int(used.argument_size_in_bytes),
        step=int(used.temp_size_in_bytes),
        flops=setting.rows
        * flops.training(setting.config, setting.length, source=setting.source, seen=True)
        / mesh.size,
        sent=_totals(found, "moved"),
        times={kind: int(count) for kind, count in _totals(found, "times").items()},
        seconds=time.perf_counter() - start,
    )


def step_time(run: DryRun, flops_per_second: float, bytes_per_second: float) -> StepTime:
    """The time that a step takes on devices which compute and send so fast.

    Raises:
      ValueError: a speed that is not above zero.
    """
    for name, speed in (("flops_per_second", flops_per_second), ("bytes_per_second", bytes_per_second)):
        if not speed > 0:
            raise ValueError(f"{name} is above 0; given {speed}")
    return StepTime(run.flops / flops_per_second, sum(run.sent.values()) / bytes_per_second)


def _placed(shape: Any, layout: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=layout)


def _totals(found: list[Collective], what: str) -> dict[str, float]:
    total: Counter[str] = Counter()
    for one in found:
        total[one.kind] += getattr(one, what)
    return {kind: total[kind] for kind in KINDS if kind in total}
