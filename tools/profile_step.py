"""Where the time of a training step goes: a trace for a viewer, and a table of operations by self time.

    python tools/profile_step.py --config=configs/forkme.py [--steps=5] [--out=runs/profile]

The trace is in the Chrome format (open it in Perfetto or chrome://tracing). The table adds up every operation that the
compiled step ran, without the time of the operations inside it.
"""

import argparse
import gzip
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from research.recipes.assemble import assemble, complete
from research.recipes.pretrain import flops_per_token
from tools.show_batch import load_config

KINDS = (
    ("matrix products", ("dot", "gemm", "matmul", "convolution", "cublas", "cutlass", "nvjet", "__ynn", "onednn")),
    ("attention kernels", ("cudnn", "flash", "fmha")),
    ("communication", ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective", "nccl")),
    ("copies and layout", ("copy", "transpose", "bitcast", "concatenate", "pad", "reshape", "memcpy", "memset")),
    ("gather and scatter", ("gather", "scatter", "dynamic-update-slice", "dynamic-slice", "slice")),
    ("reductions", ("reduce", "softmax")),
    ("random numbers", ("rng", "threefry")),
    ("loops and calls", ("while", "call", "conditional")),
    ("fused pointwise", ("fusion", "loop", "wrapped", "add", "multiply", "convert", "select", "broadcast")),
)


def kind(name: str) -> str:
    """The row of the table that an operation belongs to; products hidden in a fusion's name count as products."""
    low = name.lower()
    return next((label for label, marks in KINDS if any(mark in low for mark in marks)), "other")


def self_times(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by operation name: each event's duration less that of the events inside it on the same thread."""
    threads = defaultdict(list)
    for event in events:
        threads[event["pid"], event["tid"]].append(event)
    total: dict[str, float] = defaultdict(float)
    for rows in threads.values():
        rows.sort(key=lambda e: (e["ts"], -e["dur"]))
        open_: list[Mapping[str, Any]] = []
        for event in rows:
            while open_ and open_[-1]["ts"] + open_[-1]["dur"] <= event["ts"]:
                open_.pop()
            if open_:
                total[open_[-1]["name"]] -= event["dur"] / 1e6
            total[event["name"]] += event["dur"] / 1e6
            open_.append(event)
    return dict(total)


def operations(trace: Path) -> list[dict[str, Any]]:
    """The events of a trace that stand for operations of a compiled program."""
    with gzip.open(trace, "rt") as stream:
        events = json.load(stream)["traceEvents"]
    return [e for e in events if e.get("ph") == "X" and "hlo_op" in e.get("args", {})]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="configs/name.py, or configs/name.py:argument")
    parser.add_argument("--steps", type=int, default=5, help="steps in the trace, after two that are not")
    parser.add_argument("--out", default="runs/profile")
    parser.add_argument("--top", type=int, default=15, help="rows of the table of single operations")
    options = parser.parse_args(arguments)
    console, out = Console(), Path(options.out).absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
        config = complete(load_config(options.config).to_dict())
        parts = assemble(config, out)
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 2
    state, begin = parts.state, 0.0
    for n in range(options.steps + 2):
        if n == 2:  # the first compiles, the second warms up
            jax.profiler.start_trace(str(out), create_perfetto_trace=True)
            begin = time.perf_counter()
        state, metrics = parts.step(state, parts.frozen, parts.source.batch(n))
        jax.block_until_ready(metrics)
    each = (time.perf_counter() - begin) / options.steps
    jax.profiler.stop_trace()
    trace = max(out.rglob("perfetto_trace.json.gz"), key=lambda path: path.stat().st_mtime)
    batch = parts.source.example_batch()
    tokens = sum(batch[side].size for side in ("tokens", "inputs") if side in batch)
    flops = flops_per_token(parts.model.config, parts.model.abstract(), batch) * tokens
    report(console, self_times(operations(trace)), options.steps, options.top)
    console.print(
        f"{each * 1e3:,.1f} ms a step, {tokens / each:,.0f} tokens/s, {flops / each / 1e9:,.1f} model GFLOP/s\n"
        f"trace: {trace}",
        soft_wrap=True,
    )
    return 0


def report(console: Console, times: Mapping[str, float], steps: int, top: int) -> None:
    """Two tables: by kind of operation, and the single operations that take longest."""
    whole = sum(times.values()) or 1.0
    kinds: dict[str, float] = defaultdict(float)
    for name, seconds in times.items():
        kinds[kind(name)] += seconds
    for title, rows in (("by kind", kinds), ("longest operations", times)):
        table = Table("operation", "ms a step", "share", title=title)
        for name, seconds in sorted(rows.items(), key=lambda row: -row[1])[:top]:
            table.add_row(name, f"{seconds * 1e3 / steps:,.2f}", f"{seconds / whole:.1%}")
        console.print(table)


if __name__ == "__main__":
    sys.exit(main())
