"""What the benchmarks share: alternating timers, memory, the fastest product of this machine, one line of JSON."""

import argparse
import json
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from research.core import memory

memory.keep_freed()  # for the peers as well: they run in the same process


def arguments(description: str, **defaults: int) -> argparse.Namespace:
    """The command line: one integer flag for each default."""
    parser = argparse.ArgumentParser(description=description)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def alternate(runs: Mapping[str, Callable[[], Any]], repeats: int, warm: int = 1) -> dict[str, list[float]]:
    """Seconds of every run, in rounds (a, b, c, a, b, c, ...), so that a busy machine slows all of them alike.

    The first `warm` rounds are not counted: they compile, and make the heap as large as it has to be for all of them.
    """
    for _ in range(warm):
        for run in runs.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
        print(f"round {i + 1}/{repeats}: " + ", ".join(f"{n} {s[-1]:.3f} s" for n, s in seconds.items()), flush=True)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of every run."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def ratio(seconds: Mapping[str, list[float]], ours: str, theirs: str) -> float:
    """How many times faster ours is: the median over rounds of theirs / ours of the same round."""
    return statistics.median(b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True))


def resident() -> int:
    """Bytes of memory this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most memory in use while `run` runs: the device's own count, or on a CPU this process's resident size."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        run()
        return int(jax.devices()[0].memory_stats()["peak_bytes_in_use"])
    if not Path("/proc/self/statm").exists():
        run()
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    highest, over = [resident()], threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            highest.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        over.set()
        watcher.join()
    return max(highest)


def best_seconds(run: Callable[[], Any], repeats: int = 7) -> float:
    """The fastest of several runs, after one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def jax_product_rate(shapes: list[tuple[int, int, int]]) -> float:
    """Best FLOP/s of bf16 [R, I] x [I, O] with a float32 result over these (R, I, O)."""
    rates = []
    for rows, inner, outer in shapes:
        a, b = jnp.ones((rows, inner), jnp.bfloat16), jnp.ones((inner, outer), jnp.bfloat16)
        product = jax.jit(lambda a, b: jnp.dot(a, b, preferred_element_type=jnp.float32))
        seconds = best_seconds(lambda: jax.block_until_ready(product(a, b)))  # noqa: B023
        rates.append(2 * rows * inner * outer / seconds)
    return max(rates)


def torch_product_rate(shapes: list[tuple[int, int, int]], device: str) -> float:
    """The same in PyTorch, with a bf16 result."""
    import torch

    def synchronised(a: Any, b: Any) -> None:
        torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    rates = []
    for rows, inner, outer in shapes:
        a = torch.ones(rows, inner, dtype=torch.bfloat16, device=device)
        b = torch.ones(inner, outer, dtype=torch.bfloat16, device=device)
        rates.append(2 * rows * inner * outer / best_seconds(lambda: synchronised(a, b)))  # noqa: B023
    return max(rates)


def stream_rate(nbytes: int = 2**29) -> float:
    """Bytes per second at which a float32 matrix of this size is read by a matrix-vector product (the best of both)."""
    columns = 4096
    rows = nbytes // 4 // columns
    matrix, vector = jnp.ones((rows, columns), jnp.float32), jnp.ones((columns,), jnp.float32)
    rates = []
    for f in (jax.jit(lambda m, v: m @ v), jax.jit(lambda m, v: jnp.sum(m))):
        rates.append(nbytes / best_seconds(lambda: jax.block_until_ready(f(matrix, vector)), 5))  # noqa: B023
    if jax.default_backend() == "cpu":
        host = np.ones((rows, columns), np.float32)
        rates.append(nbytes / best_seconds(lambda: host.sum(), 5))
    return max(rates)


def settings(**values: Any) -> None:
    """Prints what was measured, on what."""
    device = jax.devices()[0]
    print(f"device: {device.device_kind} x{jax.device_count()}, {os.cpu_count()} cores, jax {jax.__version__}")
    print(", ".join(f"{name} {value}" for name, value in values.items()), flush=True)


def finish(**keys: float | None) -> None:
    """The last line: one JSON object."""
    print(json.dumps({k: v if v is None or isinstance(v, int) else float(f"{v:.4g}") for k, v in keys.items()}))
