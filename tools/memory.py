"""What a run takes on every device before it starts, what other methods would take, and the largest batch that fits.

    python tools/memory.py llama3.2-1b --method lora --rank 8 --batch 4 --sequence 2048 --card h100
    python tools/memory.py path/to/a/folder --policy bf16 --remat full --mesh fsdp=8 --batch 64 --plot memory.png
    python tools/memory.py vocab_size=32000,d_model=512,n_layers=8,n_heads=8,d_ff=2048 --batch 32 --sequence 512
    python tools/memory.py llama3-8b --decode --method nf4 --batch 16 --sequence 4096 --card a10

The model is a preset, a folder with a Hugging Face config.json, or fields of `ModelConfig`. Methods are those of
`research.weights`, several joined by "+" (nf4+lora is QLoRA). The last line is one JSON object. Without a GPU here,
attention that a GPU would fuse (encoders, windows, prefixes) counts with its scores, which is too much.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

# Also as `python tools/memory.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax

from research.interop import config_from_hf
from research.interop.folder import read_json
from research.interop.run import config_from_dict
from research.models import ModelConfig, preset
from research.report import bars, print_table, save
from research.scaling import capacity, flops
from research.scaling.capacity import gigabytes
from research.scaling.memory import Account, Setting, decoding, training
from research.training.optim import RULES


def model_of(text: str) -> ModelConfig:
    """The config that a preset's name, a folder or `field=value,...` stands for.

    Raises:
      ValueError: none of them.
    """
    if Path(text).is_dir():
        return config_from_hf(read_json(Path(text) / "config.json"))
    return config_from_dict(pairs(text)) if "=" in text else preset(text)


def pairs(text: str) -> dict[str, Any]:
    """`a=1,b=x` as a dict; numbers, true and false are read as such."""
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, sign, value = part.partition("=")
        if not sign:
            raise ValueError(f"expected name=value, ...; given {part!r}")
        try:
            found[name.strip()] = json.loads(value)
        except json.JSONDecodeError:
            found[name.strip()] = value
    return found


def recipe_of(method: str, rank: int | None) -> list[dict[str, Any]]:
    """The recipe that `nf4+lora` and a rank stand for; `full` trains everything."""
    names = [name for name in method.split("+") if name != "full"]
    ranked = ("lora", "rslora", "dora")
    return [{"method": name} | ({"rank": rank} if rank and name in ranked else {}) for name in names]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a preset, a Hugging Face folder, or field=value,...")
    parser.add_argument("--method", default="full", help="of research.weights, joined by '+'")
    parser.add_argument("--rank", type=int, default=None, help="of LoRA")
    parser.add_argument("--optimizer", default="adamw", choices=sorted(RULES))
    parser.add_argument("--policy", default="bf16", help="f32, bf16, pure_bf16, or storage=..,compute=..")
    parser.add_argument("--batch", type=int, default=1, help="rows of an update over all devices")
    parser.add_argument(
        "--sequence", type=int, default=None, help="tokens of a row; default: what the model takes, up to 2048"
    )
    parser.add_argument("--source", type=int, default=0, help="tokens of an encoder-decoder's inputs")
    parser.add_argument("--remat", default="none", choices=("none", "dots", "full"))
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--mesh", default="", help="data=2,fsdp=4,tensor=2,sequence=1")
    parser.add_argument("--decode", action="store_true", help="generation instead of training")
    parser.add_argument("--card", default="", help=", ".join(capacity.CARDS))
    parser.add_argument("--share", type=float, default=None, help="of the card's memory; default: what JAX takes")
    parser.add_argument("--no-what-if", action="store_true", help="only this method")
    parser.add_argument("--plot", default="", help="a .png, .pdf or .svg file with a bar per method")
    return parser.parse_args()


def report(args: argparse.Namespace) -> dict[str, Any]:
    """Prints the tables; returns what the last line says."""
    config = model_of(args.model)
    limit = capacity.card_bytes(args.card, args.share) if args.card else None
    setting = Setting(
        config,
        args.batch,
        min(config.max_length, 2048) if args.sequence is None else args.sequence,
        source=args.source,
        recipe=recipe_of(args.method, args.rank),
        optimizer={"name": args.optimizer},
        policy=args.policy,
        remat=args.remat,
        accumulate=args.accumulate,
        mesh=pairs(args.mesh),
    )
    # A card is no CPU, whatever this machine is; without one the account is for the backend at hand.
    cpu = False if args.card else jax.default_backend() == "cpu"
    account = lambda given: (decoding if args.decode else training)(given, cpu=cpu)  # noqa: E731
    told = account(setting)
    doing = "generating" if args.decode else "training"
    print_table(
        f"{args.model}, {doing} by {args.method}: bytes on a device at the fullest moment",
        ["part", "bytes", ""],
        [[name, count, gigabytes(count)] for name, count in (told._asdict() | {"total": told.total}).items()],
    )
    result = {"total": told.total} | told._asdict()
    if not args.decode:
        small = not {"full", "select", "norms", "last_layers"} & set(args.method.split("+"))
        spent = flops.training(config, setting.length, source=setting.source, remat=args.remat, frozen=small)
        result["flops_per_token"] = spent / setting.length
    if not args.no_what_if:
        table = {f"this: {args.method}": told} | capacity.what_if(setting, args.rank or 8, account)
        what_if(table, limit)
        if args.plot:
            print(f"figure: {save(figure(table), args.plot)}")
    if limit is not None:
        result["largest_batch"] = capacity.largest_rows(setting, limit, account)
        print(f"largest batch on {args.card} ({gigabytes(limit)} to use): {result['largest_batch']} rows")
    return result


def what_if(table: dict[str, Account], limit: int | None) -> None:
    """Prints one line a method."""
    header = ["method", "weights", "optimizer", "cache", "step", "total"] + ([] if limit is None else ["fits"])
    rows: list[list[Any]] = []
    for name, told in table.items():
        parts = (told.weights, told.optimizer, told.cache, told.rest, told.total)
        fits = [] if limit is None else [told.total <= limit]
        rows.append([name, *(f"{count / 1e9:.2f}" for count in parts), *fits])
    print_table("What if: gigabytes by method", header, rows)


def figure(table: dict[str, Account]) -> Any:
    """Bars of what stays and what a step takes on top, by method."""
    groups = {
        name.replace(" + ", "\n+ ").replace(", ", "\n"): {
            "weights": told.weights / 1e9,
            "optimizer": told.optimizer / 1e9,
            "step": told.rest / 1e9,
        }
        for name, told in table.items()
    }
    return bars(groups, y_label="gigabytes on a device", size=(1.1 * len(groups) + 1.5, 3.4))


def main() -> None:
    """Reads the command line; a refusal is one line and exit code 2."""
    try:
        print(json.dumps(report(arguments())))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
