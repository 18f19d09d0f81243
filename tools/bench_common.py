"""What the benchmarks share: paired timing, the machine's own limits, one line of JSON."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def settings(**more: Any) -> str:
    """One line that says where and how the figures were taken."""
    device = jax.devices()[0].device_kind
    return f"{platform.machine()} {device}, {os.cpu_count()} cores, jax {jax.__version__}; " + ", ".join(
        f"{name} {value}" for name, value in more.items()
    )


def alternate(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each callable in turn, A B C A B C ..., so that a machine whose speed drifts favours none."""
    for run in runs.values():  # compile and warm up
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
    return times


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Median over rounds of theirs / ours: above 1, ours is faster."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def best_seconds(run: Callable[[], Any], rounds: int = 5) -> float:
    """The fastest of some runs, for measuring what the machine can do."""
    return min(alternate({"run": run}, rounds)["run"])


def bandwidth(megabytes: int = 512) -> float:
    """Bytes per second that a matrix-vector product reads at best: the floor under decoding one row."""
    width = 4096
    matrix = jnp.ones((megabytes * 2**20 // 4 // width, width), jnp.float32)
    vector = jnp.ones((width,), jnp.float32)
    product = jax.jit(lambda m, v: m @ v)
    return matrix.nbytes / best_seconds(lambda: product(matrix, vector).block_until_ready(), 8)


def report(times: Mapping[str, Sequence[float]]) -> None:
    """Median and range of every row."""
    for name, seconds in times.items():
        middle, low, high = statistics.median(seconds), min(seconds), max(seconds)
        print(f"{name:40s} median {middle:8.3f} s   range {low:.3f} .. {high:.3f} s   {len(seconds)} runs", flush=True)


def conclude(numbers: Mapping[str, float]) -> None:
    """The last line: one JSON object."""
    print(json.dumps({name: round(value, 4) for name, value in numbers.items()}))
