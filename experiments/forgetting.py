"""What a model loses while it learns: tuned on one text or task, measured on the others and on what it knew before.

    python -m experiments.forgetting --config=configs/forgetting.py --workdir=runs/forgetting
    python -m experiments.forgetting --config=configs/forgetting.py:tasks --workdir=runs/forgetting_tasks

A cell is (method, seed): one JSON file in the folder. Started again, only what is missing is done. See *Catastrophic
interference in connectionist networks*, McCloskey & Cohen, 1989; replay of the model's own samples: *Catastrophic
forgetting, rehearsal and pseudorehearsal*, Robins, 1995.
"""

import statistics
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

# Also as `python experiments/forgetting.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, data_folder, names, picked, spread, sweep
from experiments.loading import load
from experiments.texts import Split, own_samples, read_part, windows
from experiments.trial import linear_decay, train
from research import weights
from research.core import compilation, tree
from research.data.mixtures import Mixture
from research.data.rows import PackedRows
from research.data.sources import Batches, Stream, one_pass
from research.data.virtual import with_virtual
from research.models import Model, build
from research.recipes.pretrain import language_model_loss
from research.report import plots, print_table
from research.training.evaluate import make_evaluate
from research.weights.prompts import virtual_ids

BEFORE = "before"


def run_cell(
    config: Mapping[str, Any],
    method: Mapping[str, Any],
    seed: int,
    model: Model,
    base: Any,
    parts: Mapping[str, Split],
) -> dict[str, Any]:
    """Tunes with one method and one seed; the held-out loss of every part afterwards."""
    key = jax.random.key(seed)
    params = weights.attach(base, method["recipe"], jax.random.fold_in(key, 1), config=model.config)
    virtual = virtual_ids(params)
    length, size = config["length"] + len(virtual), config["batch_size"]

    def rows(part: str, side: str) -> PackedRows:
        return PackedRows([with_virtual(example, virtual) for example in parts[part][side]], length)

    costs: dict[str, Any] = {"trainable": 0}
    if method["recipe"]:
        shares = {config["learn"]: 1.0 - sum(method["replay"].values()), **method["replay"]}
        streams = {name: Stream(rows(name, "train"), seed + i) for i, name in enumerate(sorted(shares))}
        source = Batches(Mixture(streams, shares, seed=seed), size)
        params, costs = train(
            language_model_loss(model),
            params,
            linear_decay(method["learning_rate"], config["steps"], clip=1.0),
            [source.batch(i) for i in range(config["steps"])],
            jax.random.fold_in(key, 2),
            trainable=weights.trainable(params, method["recipe"]),
            policy=model.policy,
        )
    held = {name: list(one_pass(rows(name, "heldout"), size))[: config["heldout_batches"]] for name in parts}
    return {"losses": make_evaluate(language_model_loss(model), held)(params), **costs}


def check(config: Mapping[str, Any]) -> None:
    """Refuses methods, shares and parts that cannot be used, before any work."""
    known = [*config["parts"], *(["own samples"] if config["samples"]["count"] else [])]
    if config["learn"] not in config["parts"]:
        raise ValueError(f"learn is {config['learn']!r}; the parts are {known}")
    strange = [part for part in config["remember"] if part not in known or part == config["learn"]]
    if strange or not config["remember"]:
        raise ValueError(
            f"remember is {list(config['remember'])}; expected some of {known} without {config['learn']!r}"
        )
    for name, method in config["methods"].items():
        weights.parse(method["recipe"])
        shares = method["replay"]
        unknown = [part for part in shares if part not in known or part == config["learn"]]
        if unknown or sum(shares.values()) >= 1 or any(share <= 0 for share in shares.values()):
            raise ValueError(f"method {name!r} replays {shares}; expected positive shares below 1 in all, of {known}")


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Does the missing cells, then prints the table and draws the figure."""
    compilation.use_cache()
    check(config)
    root, length = data_folder(config["data"]), config["length"]
    path = config["model"] or str(root / "stories260K" / "checkpoint_v1.bin")
    loaded = load(path, config["tokenizer"] or None, "f32")
    model, bos = build(loaded.model.config, policy=config["policy"], unroll=True), loaded.tokenizer.bos_id
    origin = {"base": tree.fingerprint(loaded.params)}
    parts = {name: read_part(part, root, loaded.tokenizer, length) for name, part in config["parts"].items()}
    if config["samples"]["count"]:
        draw = partial(own_samples, model, loaded.params, bos, config["samples"], length)
        settings = {**origin, **config["samples"], "length": length}
        texts = sweep([Cell({"made": "own samples"}, settings, draw)], workdir, console)[0]["texts"]
        sides = {"train": texts[: len(texts) * 3 // 4], "heldout": texts[len(texts) * 3 // 4 :]}
        parts["own samples"] = {side: windows(found, bos, length) for side, found in sides.items()}
    common = {k: v for k, v in config.items() if k not in ("methods", "seeds", "model", "data", "tokenizer")}
    grid = [
        Cell(
            {"method": name, "seed": seed},
            {"method": method, **common, **origin},
            partial(run_cell, config, method, seed, model, loaded.params, parts),
        )
        for name, method in {BEFORE: {"recipe": [], "replay": {}}, **config["methods"]}.items()
        for seed in (config["seeds"][:1] if name == BEFORE else config["seeds"])
    ]
    report(sweep(grid, workdir, console), config, workdir, console)


def report(results: list[dict[str, Any]], config: Mapping[str, Any], workdir: Path, console: Console) -> None:
    """Losses of every part as a table; what was learned against what was lost as a figure."""
    learn, kept = config["learn"], list(config["remember"])
    measured = [name.removeprefix("loss/") for name in results[0]["losses"] if name.startswith("loss/")]
    parts = [learn, *kept, *(part for part in measured if part not in (learn, *kept))]
    before = {part: results[0]["losses"][f"loss/{part}"] for part in parts}
    rows, points, sizes = [], [], []
    for name in names(results, "method"):
        found = picked(results, method=name)
        losses = {part: [r["losses"][f"loss/{part}"] for r in found] for part in parts}
        change = {part: statistics.mean(losses[part]) - before[part] for part in parts}
        lost = statistics.mean(change[part] for part in kept)
        size, stored = found[0]["trainable"], found[0].get("bytes", 0)
        cost = [f"{size:,}", f"{stored / 1024:,.1f} kB"]
        rows.append([name, *cost, *(spread(losses[part]) for part in parts), f"{lost:+.3f}"])
        points.append((name, statistics.mean(losses[learn]), lost))
        sizes += [(name, size, statistics.mean(losses[learn]))] if size else []
    seeds = max(len(picked(results, method=r[0])) for r in rows)
    marks = {learn: " (learned)"} | dict.fromkeys(kept, " (known)")
    header = ["method", "trainable", "on disk", *(part + marks.get(part, "") for part in parts), "lost of the known"]
    print_table(f"Held-out loss, nats per token, {seeds} seeds", header, rows, console=console)
    x_label, y_label = f"loss on {learn}, nats per token", "mean rise of the loss on what was known"
    drawn = plots.points({"methods": points}, x_label=x_label, y_label=y_label)
    console.print(f"The figure: [bold]{plots.save(drawn, workdir / 'forgetting.png')}[/]", soft_wrap=True)
    drawn = plots.points({"methods": sizes}, x_label="trainable parameters", y_label=x_label, log_x=True)
    console.print(f"What each learned: [bold]{plots.save(drawn, workdir / 'learned.png')}[/]", soft_wrap=True)


if __name__ == "__main__":
    command.run(work, config="configs/forgetting.py", workdir="runs/forgetting")
