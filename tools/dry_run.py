"""A training step of any model on any mesh, compiled without weights: bytes, FLOPs, communication, predicted time.

    python tools/dry_run.py llama-7b --mesh fsdp=64 --batch 64 --sequence 2048 --card h100 --bandwidth 50
    python tools/dry_run.py llama2-70b --mesh fsdp=64,tensor=8 --batch 512 --sequence 4096 --card h100 --bandwidth 50
    python tools/dry_run.py t5-11b --mesh fsdp=64 --batch 128 --sequence 512 --source 512 --card tpu-v5p --bandwidth 100

The devices are virtual ones of this machine's CPU; see `research.scaling.dry_run` for what that changes. A minute and
some gigabytes of memory for the largest. The last line is one JSON object.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

# Also as `python tools/dry_run.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a preset, a Hugging Face folder, or field=value,...")
    parser.add_argument("--mesh", required=True, help="data=2,fsdp=4,tensor=2,sequence=1")
    parser.add_argument("--batch", type=int, required=True, help="rows of an update over all devices")
    parser.add_argument("--sequence", type=int, default=2048, help="tokens of a row")
    parser.add_argument("--source", type=int, default=0, help="tokens of an encoder-decoder's inputs")
    parser.add_argument("--method", default="full", help="of research.weights, joined by '+'")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--policy", default="bf16")
    parser.add_argument("--remat", default="full", choices=("none", "dots", "full"))
    parser.add_argument("--card", default="h100", help="whose peak counts")
    parser.add_argument("--utilization", type=float, default=0.5, help="share of the peak that products reach")
    parser.add_argument("--bandwidth", type=float, default=50.0, help="gigabytes a second that a device sends")
    return parser.parse_args()


def report(args: argparse.Namespace) -> dict[str, Any]:
    """Prints the table; returns what the last line says."""
    from research.report import print_table
    from research.scaling.capacity import card_flops, gigabytes
    from research.scaling.dry_run import dry_run, step_time
    from research.scaling.memory import Setting
    from tools.memory import model_of, pairs, recipe_of

    speed = card_flops(args.card, args.utilization)
    setting = Setting(
        model_of(args.model).replace(max_length=max(args.sequence, args.source)),
        args.batch,
        args.sequence,
        source=args.source,
        recipe=recipe_of(args.method, None),
        optimizer={"name": args.optimizer},
        policy=args.policy,
        remat=args.remat,
        mesh=pairs(args.mesh),
    )
    run = dry_run(setting)
    took = step_time(run, speed, args.bandwidth * 1e9)
    rows = [
        ["state and batch", gigabytes(run.kept)],
        ["step, as compiled for CPUs", gigabytes(run.step)],
        ["model FLOPs", f"{run.flops / 1e12:,.1f} TFLOP"],
        *([f"{kind}, {run.times[kind]:,} times", gigabytes(sent)] for kind, sent in run.sent.items()),
        [f"computing on {args.card} at {args.utilization:.0%}", f"{took.computing:.2f} s"],
        [f"sending at {args.bandwidth:g} GB/s", f"{took.sending:.2f} s"],
        ["a step, all overlapped to nothing overlapped", f"{took.overlapped:.2f} to {took.apart:.2f} s"],
    ]
    title = f"{args.model} on {run.devices} devices ({args.mesh}), {args.batch} rows of {args.sequence}: a device"
    print_table(f"{title}; compiled in {run.seconds:.0f} s", ["", ""], rows)
    return run._asdict() | {"computing": took.computing, "sending": took.sending}


def main() -> None:
    """Reads the command line; a refusal is one line and exit code 2."""
    args = arguments()
    try:
        sizes = [int(part.partition("=")[2]) for part in args.mesh.split(",")]
    except ValueError:
        print(f"error: expected a mesh such as fsdp=8,tensor=2; given {args.mesh!r}", file=sys.stderr)
        sys.exit(2)
    # Before jax is imported, which reads them once.
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={math.prod(sizes)}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        print(json.dumps(report(args)))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
