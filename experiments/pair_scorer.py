"""An encoder trained on pairs of answers: a judge of answers, or a scorer of toxicity; beside methods without a model.

    python -m experiments.pair_scorer --config=configs/judge_model.py --workdir=runs/judge_model
    python -m experiments.pair_scorer --config=configs/toxicity_scorer.py --workdir=runs/toxicity_scorer

A cell is a seed: one JSON file in the folder. Started again, only what is missing is done. The scorer of the first seed
is written to the folder `model`; `research.evaluation.text_scorer.TextScorer` loads it.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

# Also as `python experiments/pair_scorer.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, data_folder, spread, sweep
from experiments.loading import encoder_folder
from experiments.pairs import HELD_OUT, SETS, TRAIN, Pair, split
from experiments.scorers import decided, fit
from research.core import compilation, tree
from research.core.names import meant
from research.evaluation import bootstrap, naive_bayes
from research.evaluation.judge import TRAINED, agreement, compare, longer_wins, trained_judge
from research.interop import load_pretrained
from research.report import print_table


def run_cell(config: Mapping[str, Any], sides: Mapping[str, list[Pair]], folder: Path, seed: int) -> dict[str, Any]:
    """Trains one scorer, compares it with the held-out verdicts, and keeps it where it is the first seed's."""
    scorer, costs = fit(config, sides[TRAIN], folder, seed)
    seen = scorer([(p.question, text) for p in sides[TRAIN] for text in (p.answer_a, p.answer_b)])
    pairs = sides[HELD_OUT]
    judged = compare(trained_judge(scorer), [pair._asdict() for pair in pairs], TRAINED)
    found = scored(pairs, judged.verdicts)
    each = scorer([(p.question, text) for p in decided(pairs) for text in (p.answer_a, p.answer_b)])
    single = np.mean((each > seen.mean()) == accepted(decided(pairs)))
    found |= {"one answer": float(single), "middle": float(seen.mean()), "consistent": judged.summary()["consistent"]}
    if seed == config["seeds"][0]:
        words = (
            f"Trained on {len(sides[TRAIN])} pairs of {config['set']}. Of {found['pairs']} held-out pairs it prefers "
            f"the right answer in {found['agreement'][1]:.3f}, the longer answer being right in "
            f"{found['longer_right']:.3f}; of single answers it calls {single:.3f} rightly preferred or rejected."
        )
        facts = {"middle": found["middle"], "agreement": found["agreement"], "described": words}
        replace(scorer, facts=facts).save(Path(config["keep"]))
    return {**found, **costs}


def accepted(pairs: Sequence[Pair]) -> np.ndarray:
    """[2 n] whether answer A, answer B of each pair is the preferred one."""
    return np.array([pair.verdict == side for pair in pairs for side in "AB"])


def scored(pairs: Sequence[Pair], verdicts: Sequence[str | None]) -> dict[str, Any]:
    """Agreement with the held-out verdicts: the share of the pairs that are no tie, with its interval; κ of all pairs.

    A verdict "tie" is half right. `longer`: how often the longer answer wins.
    """
    points = [
        0.5 if v == "tie" else float(v == p.verdict) for p, v in zip(pairs, verdicts, strict=True) if p.verdict != "tie"
    ]
    right = [p.verdict for p in pairs]
    a, b = ([len(text) for text in texts] for texts in zip(*((p.answer_a, p.answer_b) for p in pairs), strict=True))
    return {
        "pairs": len(points),
        "agreement": list(bootstrap(np.array(points))),
        "kappa": agreement(verdicts, right).kappa,
        "longer": list(longer_wins(verdicts, a, b)) if set(verdicts) - {"tie"} else [0.5] * 3,
        "longer_right": longer_wins(right, a, b).mean,
    }


def without_model(sides: Mapping[str, list[Pair]]) -> dict[str, dict[str, Any]]:
    """What the same pairs say to methods that read no meaning."""
    pairs, known = sides[HELD_OUT], decided(sides[TRAIN])
    texts = [text for p in known for text in (p.answer_a, p.answer_b)]
    asked = [text for p in pairs for text in (p.answer_a, p.answer_b)]
    liked = np.array(naive_bayes(texts, accepted(known).astype(int).tolist(), asked)).reshape(-1, 2)
    longer = ["A" if len(p.answer_a) > len(p.answer_b) else "B" for p in pairs]
    shorter = ["B" if choice == "A" else "A" for choice in longer]
    words = ["tie" if a == b else "A" if a else "B" for a, b in liked.tolist()]
    ways = {"always A": ["A"] * len(pairs), "always B": ["B"] * len(pairs), "longer": longer, "shorter": shorter}
    found = {name: scored(pairs, verdicts) for name, verdicts in (ways | {"naive Bayes of words": words}).items()}
    kept = [i for i, pair in enumerate(pairs) if pair.verdict != "tie"]
    single = np.mean(liked[kept].ravel() == accepted([pairs[i] for i in kept]))
    found["naive Bayes of words"]["one answer"] = float(single)
    return found


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing seeds, then prints the table."""
    compilation.use_cache()
    if config["set"] not in SETS:
        raise ValueError(f"unknown set {config['set']!r}{meant(config['set'], SETS)}; have {sorted(SETS)}")
    read, name = SETS[config["set"]]
    sides = split(read(data_folder(config["data"]) / name))
    sides = {side: pairs[: config["pairs"] or None] for side, pairs in sides.items()}
    folder, keep = encoder_folder(config["base"]), workdir / "model"
    common = {k: v for k, v in config.items() if k not in ("seeds", "data", "base")}
    common["origin"] = tree.fingerprint(load_pretrained(folder, head="none")[1])
    settings = {**config, "keep": str(keep)}
    grid = [Cell({"seed": seed}, common, partial(run_cell, settings, sides, folder, seed)) for seed in config["seeds"]]
    if not (keep / "scorer.json").is_file():  # a scorer that was deleted is trained again
        (workdir / grid[0].file()).unlink(missing_ok=True)
    report(sweep(grid, workdir, console), without_model(sides), keep, console)


def report(results: list[dict[str, Any]], without: Mapping[str, Any], keep: Path, console: Console) -> None:
    """Agreement of the trained scorer over seeds, beside that of methods without a model."""
    rows = [
        [name, _shown(r["agreement"]), f"{r['kappa']:.3f}", f"{r['longer'][1]:.3f}", _single(r)]
        for name, r in without.items()
    ]
    columns = [
        spread([r["agreement"][1] for r in results]),
        spread([r["kappa"] for r in results]),
        spread([r["longer"][1] for r in results]),
        spread([r["one answer"] for r in results]),
    ]
    rows += [["trained, first seed", _shown(results[0]["agreement"]), "", "", ""]]
    rows += [[f"trained, seeds: {len(results)}", *columns]]
    title = f"{results[0]['pairs']} held-out pairs; in {results[0]['longer_right']:.3f} the longer answer is right"
    print_table(title, ["method", "agreement", "kappa", "longer wins", "one answer"], rows, console=console)
    seconds = statistics.median(r["seconds"] * r["steps"] for r in results)
    console.print(f"Training took {seconds:.0f} s a seed. The scorer: [bold]{keep}[/]", soft_wrap=True)


def _shown(interval: Sequence[float]) -> str:
    low, mean, high = interval
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _single(found: Mapping[str, Any]) -> str:
    return f"{found['one answer']:.3f}" if "one answer" in found else ""


if __name__ == "__main__":
    command.run(work, config="configs/judge_model.py", workdir="runs/judge_model")
