"""The executors of `submitit` that start our jobs: this machine, or SLURM."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import submitit

_A_YEAR = 365 * 24 * 60


def local(folder: Path, *, processes: int = 1, gpus: int = 0) -> submitit.LocalExecutor:
    """Jobs of `processes` processes on this machine, which see its first `gpus` GPUs and no other."""
    if processes < 1 or gpus < 0:
        raise ValueError(f"a job needs at least one process and no negative GPUs; given {processes} and {gpus}")
    executor = submitit.LocalExecutor(folder)
    executor.update_parameters(
        tasks_per_node=processes, gpus_per_node=gpus, timeout_min=_A_YEAR, signal_delay_s=0, stderr_to_stdout=True
    )
    return executor


def slurm(
    folder: Path, *, name: str, nodes: int, processes: int, minutes: int, at_once: int, more: Mapping[str, Any]
) -> submitit.AutoExecutor:
    """Jobs on SLURM: `nodes` x `processes` tasks; `more` are further parameters of its executor, such as partition.

    A job that reaches its limit or is preempted is queued again and goes on.

    Raises:
      ValueError: there is no SLURM, or it has no such parameter.
    """
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=1000)
    except RuntimeError:
        raise ValueError("there is no SLURM here: srun was not found; `local` runs on this machine") from None
    shared = {"cpus_per_task", "gpus_per_node", "mem_gb"}
    try:
        executor.update_parameters(
            name=name,
            nodes=nodes,
            tasks_per_node=processes,
            timeout_min=minutes,
            stderr_to_stdout=True,
            slurm_array_parallelism=at_once,
            **{key if key in shared else f"slurm_{key}": value for key, value in more.items()},
        )
    except NameError as error:
        raise ValueError(f"--set: {str(error).splitlines()[0]}") from None
    return executor
