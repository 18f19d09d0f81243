"""Reward models learned from people's choices: accuracy, calibration and length bias, beside length and words alone.

    python -m experiments.reward_model --config=configs/reward_model.py --workdir=runs/reward_model

A cell is (way, seed): one JSON file in the folder. Started again, only what is missing is done. The reward model of the
first seed of every way is written to the folder of its name, for `research.evaluation.text_scorer.TextScorer`.
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
from scipy.special import expit

# Also as `python experiments/reward_model.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, data_folder, names, picked, spread, sweep
from experiments.loading import encoder_folder
from experiments.pairs import HELD_OUT, SETS, TRAIN, Pair, split
from experiments.scorers import decided, fit
from research.core import compilation, tree
from research.core.names import meant
from research.data.word_vectors import count_words, split_words
from research.evaluation import bootstrap
from research.evaluation.baselines import linear_preference
from research.evaluation.calibration import diagram, error_by_chance, reliability
from research.evaluation.text_scorer import FACTS
from research.interop import load_pretrained
from research.report import plots, print_table

LOSSES = ("pairs", "classes")
SIDES = ("longer", "shorter")
RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Split:
    """Training pairs, and held-out ones as the preferred and the rejected answer to a question."""

    def __init__(self, sides: Mapping[str, Sequence[Pair]]):
        self.train, held_out = decided(sides[TRAIN]), decided(sides[HELD_OUT])
        self.rows = [(p.question, text) for p in held_out for text in ordered(p)]
        chosen, rejected = ([len(answer) for _, answer in self.rows[side::2]] for side in (0, 1))
        self.longer = np.subtract(chosen, rejected)  # [n] characters by which the preferred answer is longer
        if not self.train or not (self.longer > 0).any() or not (self.longer < 0).any():
            raise ValueError(
                f"{len(self.train)} training and {len(held_out)} held-out pairs are too few: among the latter the "
                "preferred answer must be the longer one somewhere and the shorter one elsewhere"
            )


def ordered(pair: Pair) -> tuple[str, str]:
    """The preferred answer and the other one."""
    return (pair.answer_a, pair.answer_b) if pair.verdict == "A" else (pair.answer_b, pair.answer_a)


def run_cell(config: Mapping[str, Any], pairs: Split, way: Mapping[str, Any], seed: int, keep: Path) -> dict[str, Any]:
    """Trains one reward model and scores all answers of the held-out pairs; keeps it where it is the first seed's."""
    folder, settings = base_folder(way), {**config, **way}
    scorer, costs = fit(settings, pairs.train, folder, seed, classes=way["loss"] == "classes")
    middle = float(scorer([(p.question, text) for p in pairs.train[:200] for text in ordered(p)]).mean())
    scores = scorer(pairs.rows).reshape(-1, 2)
    if seed == config["seeds"][0]:
        right = bootstrap((scores[:, 0] > scores[:, 1]).astype(float))
        told = (
            f"Trained on {len(pairs.train)} pairs of hh-rlhf's harmless set; right on {right} of {len(scores)} others."
        )
        replace(scorer, facts={"middle": middle, "agreement": list(right), "described": told}).save(keep)
    return {"scores": scores.tolist(), "middle": middle, **costs}


def base_folder(way: Mapping[str, Any]) -> Path:
    """The folder of a way's base.

    Raises:
      ValueError: an unknown loss, or no such folder.
    """
    if way["loss"] not in LOSSES:
        raise ValueError(f"unknown loss {way['loss']!r}{meant(way['loss'], LOSSES)}; have {list(LOSSES)}")
    folder = encoder_folder(way["base"])
    if not folder.is_dir():
        raise ValueError(f"no base model in {folder}: experiments.base_models makes one, or name another as `base`")
    return folder


def without_model(pairs: Split) -> dict[str, np.ndarray]:
    """Reward differences [n] of two linear rewards that learned from the same pairs: of the length, of the words."""
    train = [text for pair in pairs.train for text in ordered(pair)]
    asked = [answer for _, answer in pairs.rows]
    lengths, others = (np.array([[len(text)] for text in texts], np.float64) for texts in (train, asked))
    scale = np.std(lengths[::2] - lengths[1::2]) or 1.0
    vocabulary = {word: i for i, word in enumerate(sorted({w for text in train for w in split_words(text)}))}
    features = {
        "length": (lengths / scale, others / scale),
        "words": (count_words(train, vocabulary).sign(), count_words(asked, vocabulary).sign()),
    }
    return {
        name: (held[::2] - held[1::2]) @ with_best_ridge(known[::2] - known[1::2])
        for name, (known, held) in features.items()
    }


def with_best_ridge(differences: Any) -> np.ndarray:
    """The weights of `linear_preference` whose ridge foretells every fifth training pair best from the others."""
    fifth = np.arange(differences.shape[0]) % 5 == 0
    nats = {
        ridge: np.logaddexp(0, -differences[fifth] @ linear_preference(differences[~fifth], ridge=ridge)).sum()
        for ridge in RIDGES
    }
    return linear_preference(differences, ridge=min(nats, key=lambda ridge: nats[ridge]))


def measured(differences: np.ndarray, longer: np.ndarray, bins: int) -> dict[str, float]:
    """What the reward differences r(preferred) − r(rejected) [n] of held-out pairs say; equal rewards are half right.

    `nats`: mean −log σ(difference). `error`: calibration error of σ(|difference|); `by chance`: that of a reward model
    as sure as this one and as often right as it is sure. `with length`: correlation with the difference of lengths.
    """
    points, sure = right(differences), expit(np.abs(differences))
    flat = np.std(differences) == 0
    return {
        "accuracy": points.mean(),
        "nats": np.logaddexp(0, -differences).mean(),
        "error": reliability(sure, differences > 0, bins=bins, kind="mass").ece,
        "by chance": error_by_chance(sure, bins=bins, kind="mass"),
        "with length": np.nan if flat else np.corrcoef(differences, longer)[0, 1],
        "longer": points[longer > 0].mean(),
        "shorter": points[longer < 0].mean(),
    }


def right(differences: np.ndarray) -> np.ndarray:
    """1 where the preferred answer has the higher reward, ½ where both have the same."""
    return (1 + np.sign(differences)) / 2


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the tables and draws the figures."""
    compilation.use_cache()
    read, name = SETS["hh_rlhf"]
    sides = split(read(data_folder(config["data"]) / name), config["held_out"])
    pairs = Split({side: found[: config["pairs"] or None] for side, found in sides.items()})
    common = {k: v for k, v in config.items() if k not in ("ways", "seeds", "data", "bins")}
    bases = {way: base_folder(settings) for way, settings in config["ways"].items()}
    origins = {way: tree.fingerprint(load_pretrained(folder, head="none")[1]) for way, folder in bases.items()}
    grid = [
        Cell(
            {"way": way, "seed": seed},
            {**common, "learns": settings, "origin": origins[way]},
            partial(run_cell, config, pairs, settings, seed, workdir / way.replace(", ", "_")),
        )
        for seed in config["seeds"]
        for way, settings in config["ways"].items()
    ]
    for cell in grid[: len(bases)]:  # a reward model that was deleted is trained again
        if not (workdir / cell.at["way"].replace(", ", "_") / FACTS).is_file():
            (workdir / cell.file()).unlink(missing_ok=True)
    report(sweep(grid, workdir, console), pairs, config["bins"], workdir, console)


def report(results: list[dict[str, Any]], pairs: Split, bins: int, workdir: Path, console: Console) -> None:
    """Accuracy, calibration and length bias of every way over its seeds, beside rewards that need no model."""
    found = {name: [d] for name, d in without_model(pairs).items()}
    words = right(found["words"][0])
    single = dict.fromkeys(found, "")
    for way in names(results, "way"):
        scores = [np.array(r["scores"]) for r in picked(results, way=way)]
        found[way] = [s[:, 0] - s[:, 1] for s in scores]
        middles = [r["middle"] for r in picked(results, way=way)]
        hits = [np.mean([s[:, 0] > m, s[:, 1] < m]) for s, m in zip(scores, middles, strict=True)]
        single[way] = spread([float(h) for h in hits])
    right_of, sure_of, groups = [], [], {}
    for name, runs in found.items():
        each = [measured(d, pairs.longer, bins) for d in runs]
        over = {what: spread([float(one[what]) for one in each]) for what in each[0]}
        points = np.mean([right(d) for d in runs], axis=0)
        beyond = "" if name == "words" else shown(bootstrap(points - words), "+")
        right_of.append([name, shown(bootstrap(points)), over["accuracy"], beyond, single[name]])
        chance = f"{statistics.mean(one['by chance'] for one in each):.3f}"
        sure_of.append([name, over["nats"], over["error"], chance, *(over[w] for w in ("with length", *SIDES))])
        sides = {"longer": pairs.longer > 0, "shorter": pairs.longer < 0}
        groups[name] = {f"preferred is {side}": tuple(bootstrap(points[sides[side]])) for side in SIDES}
    title = f"{len(words)} held-out pairs, {len(pairs.train)} to learn from, seeds: {len(names(results, 'seed'))}"
    header = ["reward", "accuracy [95 %]", "over seeds", "beyond words [95 %]", "one answer"]
    print_table(title, header, right_of, console=console)
    counts = [f"{side} ({int(sides[side].sum())})" for side in SIDES]
    header = ["reward", "nats", "ECE", "by chance", "r, length", *counts]
    print_table("Calibration; accuracy where the preferred answer is", header, sure_of, console=console)
    pooled = {name: np.concatenate(runs) for name, runs in found.items()}
    curves = {k: reliability(expit(np.abs(d)), d > 0, bins=bins, kind="mass") for k, d in pooled.items()}
    labels = {"x_label": "confidence in the pair", "y_label": "share that is right"}
    perfect = {"as sure as right": ([0.5, 1.0], [0.5, 1.0])}  # of two answers, one is at least as likely as a coin says
    figures = {"reliability": plots.curves(diagram(curves) | perfect, **labels)}
    figures["length"] = plots.bars(groups, y_label="accuracy", size=(7.2, 3.4))
    for name, figure in figures.items():
        path = plots.save(figure, workdir / f"reward_{name}.png")
        console.print(f"The figure: [bold]{path}[/]", soft_wrap=True)
    for way in names(results, "way"):
        minutes = sum(r["cpu_seconds"] * r["steps"] for r in picked(results, way=way)) / 60
        console.print(f"{way}: {minutes:.1f} processor minutes of training", soft_wrap=True, highlight=False)


def shown(interval: Sequence[float], sign: str = "") -> str:
    low, mean, high = interval
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


if __name__ == "__main__":
    command.run(work, config="configs/reward_model.py", workdir="runs/reward_model")
