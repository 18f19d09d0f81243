"""Start a command as a job, or once for every cell of a grid of settings; started again, it does what is missing.

    python -m tools.launch local --folder=runs/two --processes=2 -- \
        python -m experiments.train --config=configs/forkme.py --config.mesh.data=-1
    python -m tools.launch local --folder=runs/sweep --at-once=2 --grid model.n_layers=2,4 \
        --grid optimizer.learning_rate=1e-3,3e-3 --seeds=0,1 -- python -m experiments.train --config=configs/forkme.py
    python -m tools.launch slurm --folder=runs/big --nodes=4 --processes=8 --set gpus_per_node=8 -- ...
    python -m tools.launch print-k8s --name=big --hosts=4 --gpus=8 --image=... --claim=runs -- ... | kubectl apply -f -
    python -m tools.launch table --folder=runs/sweep ...    # what is there now; --grid, --seeds, command of the sweep

The command gets --workdir, a folder of its own for each cell, and --config.<setting>=<value> of the grid.
Needs `pip install 'lifecycle[launch]'`. Exit code: 0 all finished, 1 some failed, 2 refused, 130 interrupted.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tools.launch import executors, grid, manifest, sweep, table


def main(arguments: Sequence[str]) -> int:
    """Runs one command line."""
    own, command = _split(arguments)
    args = _parser().parse_args(own)
    console = Console()
    try:
        if args.how == "print-k8s":
            pods = {name: getattr(args, name) for name in manifest.Pods.__dataclass_fields__}
            sys.stdout.write(manifest.text(manifest.manifest(manifest.Pods(**pods), command)))
            return 0
        return _launch(args, command, console)
    except ValueError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2


def _launch(args: argparse.Namespace, command: Sequence[str], console: Console) -> int:
    wanted = grid.make(args.folder.absolute(), command, args.grid, args.seeds)
    grid.claim(wanted)
    code = 0
    if args.how != "table":
        executor = _executor(args, wanted)
        try:
            code = 0 if sweep.run(wanted, executor, at_once=args.at_once, console=console, gpus=_gpus(args) > 0) else 1
        except KeyboardInterrupt:
            console.print("interrupted; start the same command again to go on from here", style="yellow")
            code = 130
    console.print(table.write(wanted, args.results, args.show), markup=False, highlight=False, soft_wrap=True)
    console.print(f"table.md and table.jsonl are in {wanted.folder}", highlight=False, soft_wrap=True)
    return code


def _gpus(args: argparse.Namespace) -> int:
    return args.gpus_per_node if args.how == "local" else int(dict(args.set).get("gpus_per_node", 0))


def _executor(args: argparse.Namespace, wanted: grid.Sweep) -> Any:
    if args.at_once < 1:
        raise ValueError(f"--at-once must be at least 1, given {args.at_once}")
    folder = wanted.folder / "jobs"
    gpus = _gpus(args)
    tasks = args.processes * getattr(args, "nodes", 1)
    if gpus and tasks > 1 and gpus != args.processes:
        raise ValueError(f"of several processes each drives one GPU: --processes={args.processes} for {gpus} GPUs")
    if args.how == "local":
        if gpus and args.at_once > 1:
            raise ValueError("jobs at once on one machine would share its GPUs; take --at-once=1")
        return executors.local(folder, processes=args.processes, gpus=gpus)
    return executors.slurm(
        folder,
        name=wanted.folder.name,
        nodes=args.nodes,
        processes=args.processes,
        minutes=args.minutes,
        at_once=args.at_once,
        more=dict(args.set),
    )


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    words = list(arguments)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"whole numbers with commas, given {text!r}") from None


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"name=value, given {text!r}")
    return key, int(value) if value.isdigit() else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.launch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ways = parser.add_subparsers(dest="how", required=True)
    swept = argparse.ArgumentParser(add_help=False)
    swept.add_argument("--folder", type=Path, required=True, help="where everything goes; shared by all machines")
    swept.add_argument("--grid", action="append", default=[], metavar="SETTING=A,B", help="may be given several times")
    swept.add_argument("--seeds", type=_numbers, default=[], help="of config.seed, such as 0,1,2")
    swept.add_argument("--results", default="metrics.jsonl", help="the file in a cell's --workdir with its numbers")
    swept.add_argument(
        "--show", type=_words, default=[], help="numbers that become columns (default: losses, accuracies)"
    )
    local = ways.add_parser("local", parents=[swept], help="on this machine")
    local.add_argument("--processes", type=int, default=1, help="processes of each job")
    local.add_argument("--gpus-per-node", type=int, default=0, help="GPUs that a job sees, one for each process")
    local.add_argument("--at-once", type=int, default=1, help="jobs that run at the same time")
    slurm = ways.add_parser("slurm", parents=[swept], help="as a job array on SLURM")
    slurm.add_argument("--nodes", type=int, default=1)
    slurm.add_argument("--processes", type=int, default=1, help="processes of each node, one for each GPU")
    slurm.add_argument("--minutes", type=int, default=24 * 60, help="limit of a job, which is then queued again")
    slurm.add_argument("--at-once", type=int, default=256, help="jobs that run at the same time")
    slurm.add_argument(
        "--set", type=_pair, action="append", default=[], metavar="NAME=VALUE",
        help="gpus_per_node, cpus_per_task, mem_gb, partition, account, qos, constraint, ... of submitit",
    )  # fmt: skip
    ways.add_parser("table", parents=[swept], help="what the cells of a sweep gave so far")
    pods = ways.add_parser("print-k8s", help="a Kubernetes manifest for one run over several pods")
    for name, field in manifest.Pods.__dataclass_fields__.items():
        needed = name in ("name", "image", "hosts", "claim")
        more = {"required": True} if needed else {"default": field.default}
        pods.add_argument(f"--{name}", type=field.type, **more)
    return parser


if __name__ == "__main__":
    # SIGINT too: a shell lets what it starts in the background ignore it, and jobs are stopped by it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
