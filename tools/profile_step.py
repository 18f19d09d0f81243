"""Where the time of a training step goes: a trace to open in a viewer, and two tables to read now.

    python tools/profile_step.py --config=configs/forkme.py --workdir=runs/profile [--steps=5]

Writes <workdir>/trace (TensorBoard's profile plugin, or https://ui.perfetto.dev for the .trace.json.gz in it) and
<workdir>/profile.json. The tables sort the busy time of all threads or streams by kind of operation and by part of the
model; the last line printed is the JSON.
"""

import contextlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from rich.console import Console

# Also as `python tools/profile_step.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax

from experiments import command
from research.core import compilation
from research.core import mesh as meshes
from research.recipes.assemble import Assembled, assemble, complete
from research.report import print_table
from research.training import log

KINDS = (
    ("communication", {"all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"}),
    ("matrix products", {"dot", "convolution", "ragged-dot"}),
    ("custom kernels", {"custom-call"}),
    ("indexing", {"gather", "scatter", "dynamic-slice", "dynamic-update-slice", "sort", "iota"}),
    ("reductions", {"reduce", "reduce-window"}),
    ("elementwise", {"add", "multiply", "subtract", "divide", "exponential", "select", "maximum", "compare", "tanh"}),
    ("control", {"while", "call", "conditional", "tuple", "get-tuple-element", "parameter"}),
)
PARTS = (
    ("attention", r"/(attention|cross|self_attention)/"),
    ("feed-forward", r"/mlp/"),
    ("norms", r"norm"),
    ("loss and output layer", r"^(?!.*Transformer).*jvp\(|/head"),
    ("embeddings", r"embed|/positions"),
    ("rest of the layers", r"Transformer|/Block/"),
)
PRODUCT_KERNELS = re.compile(r"gemm|matmul|cublas|onednn|dot", re.IGNORECASE)


class Instruction(NamedTuple):
    """One line of a compiled program."""

    opcode: str
    called: str
    origin: str
    target: str


def read_program(text: str) -> tuple[dict[str, Instruction], dict[str, list[Instruction]]]:
    """(instruction by name, instructions by computation) of HLO text."""
    by_name: dict[str, Instruction] = {}
    by_computation: dict[str, list[Instruction]] = {}
    current = ""
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            current = head[1]
        found = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = .*?([a-z][a-z0-9\-]*)\(", line)
        if not found:
            continue
        called, origin, target = (
            match[1] if (match := re.search(pattern, line)) else ""
            for pattern in (
                r"(?:calls|to_apply)=%?([\w.\-]+)",
                r'op_name="([^"]*)"',
                r'custom_call_target="([^"]*)"',
            )
        )
        by_name[found[1]] = Instruction(found[2], called, origin, target)
        by_computation.setdefault(current, []).append(by_name[found[1]])
    return by_name, by_computation


def kind_of(instruction: Instruction, computations: Mapping[str, list[Instruction]]) -> str:
    """The most telling kind among an instruction and what it fuses or calls."""
    inside, queue, seen = [instruction], [instruction.called], set()
    while queue:
        name = queue.pop()
        if name and name not in seen:
            seen.add(name)
            inside += computations.get(name, [])
            queue += [each.called for each in computations.get(name, [])]
    if any(PRODUCT_KERNELS.search(each.target) for each in inside):
        return "matrix products"
    opcodes = {re.sub(r"-(start|done)$", "", each.opcode) for each in inside}
    return next((kind for kind, members in KINDS if opcodes & members), "copies and conversions")


def part_of(origin: str) -> str:
    """Which part of the step an instruction comes from, by the name that JAX gave its origin."""
    part = next((part for part, pattern in PARTS if re.search(pattern, origin)), "optimizer and rest")
    if part == "optimizer and rest":
        return part
    return f"{part}, {'backward' if 'transpose(' in origin else 'forward'}"


def own_times(events: Iterable[tuple[str, float, float]]) -> Counter[str]:
    """name -> time not spent in nested events, of (name, start, duration) on one thread or stream."""
    own: Counter[str] = Counter()
    stack: list[tuple[str, float]] = []
    for name, start, duration in sorted(events, key=lambda event: (event[1], -event[2])):
        while stack and stack[-1][1] <= start:
            stack.pop()
        own[name] += duration
        if stack:
            own[stack[-1][0]] -= min(duration, stack[-1][1] - start)
        stack.append((name, start + duration))
    return own


def read_trace(folder: Path, known: Mapping[str, Instruction]) -> Counter[str]:
    """instruction -> nanoseconds, over all threads and streams of the newest trace in the folder."""
    newest = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    total: Counter[str] = Counter()
    for plane in jax.profiler.ProfileData.from_file(str(newest)).planes:
        for line in plane.lines:
            events = []
            for event in line.events:
                # Kernels of a GPU carry the instruction as a property, threads of a CPU as their name.
                name = event.name if event.name in known else str(dict(event.stats).get("hlo_op", ""))
                if name in known:
                    events.append((name, float(event.start_ns), float(event.duration_ns)))
            total.update(own_times(events))
    return total


def trace(parts: Assembled, steps: int, folder: Path) -> tuple[float, str]:
    """(seconds per step, program text): traces `steps` steps after two that warm up."""
    state, mesh = parts.state, parts.mesh
    batches = [meshes.place(parts.source.batch(n), mesh) for n in range(steps)]
    program = parts.step.lower(state, parts.frozen, parts.source.batch(0)).compile()
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        for n in range(2):
            state, metrics = program(state, parts.frozen, batches[n % steps])
        jax.block_until_ready(metrics)
        with jax.profiler.trace(str(folder), create_perfetto_trace=True, profiler_options=options):
            begin = time.perf_counter()
            for batch in batches:
                state, metrics = program(state, parts.frozen, batch)
            jax.block_until_ready((state, metrics))
            seconds = (time.perf_counter() - begin) / steps
    return seconds, program.as_text()


def profile(config: Mapping[str, Any], workdir: Path, steps: int) -> dict[str, Any]:
    """Milliseconds per step: wall clock, and busy time by kind, by part, and of the 15 costliest instructions."""
    log.check_writable(workdir)
    seconds, text = trace(assemble(config, workdir), steps, workdir / "trace")
    known, computations = read_program(text)
    kinds: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    top: Counter[str] = Counter()
    for name, nanoseconds in read_trace(workdir / "trace", known).items():
        spent = nanoseconds / steps / 1e6
        kinds[kind_of(known[name], computations)] += spent
        parts[part_of(known[name].origin)] += spent
        top[f"{name}  {known[name].origin}"] += spent
    sort = lambda table, n=None: {name: round(ms, 4) for name, ms in table.most_common(n)}  # noqa: E731
    return {
        "backend": jax.default_backend(),
        "step_ms": round(seconds * 1e3, 3),
        "busy_ms": round(sum(kinds.values()), 3),
        "kinds": sort(kinds),
        "parts": sort(parts),
        "top": sort(top, 15),
    }


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Profiles, and prints the tables."""
    config = complete(config)
    compilation.use_cache(config["cache"])
    result = profile(config, workdir, flags.FLAGS.steps)
    busy = result["busy_ms"] or 1.0
    for title, key in (("By kind of operation", "kinds"), ("By part of the step", "parts"), ("Costliest", "top")):
        rows = [
            [name if len(name) < 70 else name[:24] + " ... " + name[-40:], f"{ms:.3f}", f"{100 * ms / busy:.1f} %"]
            for name, ms in result[key].items()
        ]
        print_table(title, ["", "ms per step", "of busy time"], rows, console=console)
    (workdir / "profile.json").write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"trace: {workdir / 'trace'}", soft_wrap=True)
    print(json.dumps({name: value for name, value in result.items() if name != "top"}))


if __name__ == "__main__":
    flags.DEFINE_integer("steps", 5, "steps to trace", lower_bound=1)
    command.run(work, workdir="runs/profile")
