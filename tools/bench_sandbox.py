"""Programs a second in the sandbox, from one and from as many threads as there are processors.

    python tools/bench_sandbox.py [--programs 200] [--rounds 3]

`cpu_ms`: processor time of one run, of all processes that it takes, which another load of the machine changes little.
`python_ms`: that of the interpreter alone (-I -S), below which no run of a fresh one can be.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from research.apps import sandbox

PROGRAM = "def solution():\n    return sum(i * i for i in range(1000))\nprint(solution())"


def once() -> None:
    """One program, seen to have run."""
    result = sandbox.run(PROGRAM)
    if result.output != "332833500\n":
        raise RuntimeError(result.error)


def interpreter() -> None:
    """A process of Python that does nothing."""
    subprocess.run([os.path.realpath(sys.executable), "-I", "-S", "-c", "pass"], env={}, check=True)


def measure(run: Callable[[], None], count: int, threads: int) -> tuple[float, float]:
    """Runs a second and processor seconds of one."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: run(), range(count)))
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return count / seconds, used / count


def main() -> None:
    """Measures and prints; the best of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    level, cores = sandbox.require("bubblewrap"), os.cpu_count() or 1
    once()  # also finds what the standard library needs
    plans = {"one thread": (once, 1), f"{cores} threads": (once, cores), "the interpreter alone": (interpreter, 1)}
    best: dict[str, list[tuple[float, float]]] = {name: [] for name in plans}
    for _ in range(args.rounds):
        for name, (run, threads) in plans.items():
            best[name].append(measure(run, args.programs, threads))
            rate, used = best[name][-1]
            print(f"{name}: {rate:.1f} programs/s, {1000 * used:.1f} ms of processor time each", flush=True)
    one, all_, _ = (max(values)[0] for values in best.values())
    used, python = (1000 * min(cpu for _, cpu in best[name]) for name in ("one thread", "the interpreter alone"))
    print(f"isolation {level}, {cores} processors, Python {sys.version.split()[0]}")
    numbers = {"per_second": all_, "per_second_one_thread": one, "ms": 1000 / one, "cpu_ms": used, "python_ms": python}
    print(json.dumps({"level": level, **{name: float(f"{value:.4g}") for name, value in numbers.items()}}))


if __name__ == "__main__":
    main()
