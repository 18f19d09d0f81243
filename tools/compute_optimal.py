"""A budget of compute: which size, how many tokens, what loss.

    python tools/compute_optimal.py --flops 5.76e23
    python tools/compute_optimal.py --hours 24 --card h100 --cards 8 --law runs/laws/laws.json
    python tools/compute_optimal.py --flops 1e21 --parameters 7e9        # of a size that is given

The law is a published one or the laws.json of `experiments.fit_scaling_laws`, which has bootstrapped draws and so
intervals. C = 6 N D, or --per other FLOPs per parameter and token. The last line is one JSON object.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

# Also as `python tools/compute_optimal.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from research.report import print_table
from research.scaling.capacity import TERAFLOPS, card_flops
from research.scaling.laws import FLOPS, PUBLISHED, Law, Optimum, interval, known


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--flops", type=float, help="C, of the whole training")
    budget.add_argument("--hours", type=float, help="of --cards cards")
    parser.add_argument("--card", default="", help=", ".join(TERAFLOPS))
    parser.add_argument("--cards", type=int, default=1)
    parser.add_argument("--utilization", type=float, default=0.4, help="share of a card's dense bfloat16 peak")
    parser.add_argument("--law", default="besiroglu", help=f"{', '.join(PUBLISHED)}, or a laws.json")
    parser.add_argument("--parameters", type=float, default=0.0, help="N, where it is given instead of the best")
    parser.add_argument("--per", type=float, default=FLOPS, help="FLOPs per parameter and token (default 6)")
    return parser.parse_args()


def budget_of(args: argparse.Namespace) -> float:
    """C in FLOPs.

    Raises:
      ValueError: no card for the hours, or a number that is not above zero.
    """
    for name in ("flops", "hours", "cards", "per"):
        if (given := getattr(args, name)) is not None and not 0 < given < float("inf"):
            raise ValueError(f"--{name} is above 0; given {given}")
    if args.parameters < 0:
        raise ValueError(f"--parameters is above 0; given {args.parameters}")
    if args.flops is not None:
        return args.flops
    if not args.card:
        raise ValueError(f"--hours are of a card: give --card; have {list(TERAFLOPS)}")
    return args.hours * 3600 * args.cards * card_flops(args.card, args.utilization)


def chosen(law: Law, flops: float, per: float, parameters: float) -> Optimum:
    """The optimum, or what a given size reaches."""
    if not parameters:
        return law.optimal(flops, per)
    tokens = flops / per / parameters
    return Optimum(parameters, tokens, law.loss(parameters, tokens))


def report(args: argparse.Namespace) -> dict[str, Any]:
    """Prints the table; returns what the last line says."""
    flops, found = budget_of(args), known(args.law)
    best = chosen(found.law, flops, args.per, args.parameters)
    several = [chosen(law, flops, args.per, args.parameters) for law in found.draws]
    result: dict[str, Any] = {"law": args.law, "flops": flops}
    rows = []
    numbers = best._asdict() | {"tokens per parameter": best.tokens / best.parameters}
    for name, value in numbers.items():
        result[name.replace(" ", "_")] = value
        drawn = [one._asdict() | {"tokens per parameter": one.tokens / one.parameters} for one in several]
        spread = interval([one[name] for one in drawn]) if drawn else None
        if spread is not None:
            result[name.replace(" ", "_") + "_interval"] = spread
        rows.append([name, f"{value:.5g}", "" if spread is None else f"{spread[0]:.4g} to {spread[1]:.4g}"])
    print_table(f"C = {flops:.4g} FLOPs by {args.law}: {found.origin}", ["", "", "95 % interval"], rows)
    if not found.draws:
        print("No interval: the coefficients are known and not the draws; fit the points to have them.")
    if found.flops is not None and not found.flops[0] <= flops <= found.flops[1]:
        low, high = found.flops
        print(
            f"Beyond the points: they have {low:.3g} to {high:.3g} FLOPs; the interval knows nothing of what changes."
        )
    return result


def main() -> None:
    """Reads the command line; a refusal is one line and exit code 2."""
    try:
        print(json.dumps(report(arguments())))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
