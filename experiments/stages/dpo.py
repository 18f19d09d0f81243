"""Stage 20: DPO on the same pairs: adapters on the tuned model, which is the reference below them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.stages import learning, pairs, tokenizer
from experiments.stages.stage import Done, Stage
from research.recipes.dpo import preference_loss
from research.training import log


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Trains the adapters; the accuracy and the margin of the implied rewards on held-out pairs as curves."""
    settings = config["dpo"]
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    length = pairs.row_length(config["pairs"])
    rows = {side: pairs.rows(inputs["pairs"], side, pieces, length) for side in ("train", "test")}
    tuned = learning.load_weights(inputs["tune"], model)
    loss_fn = preference_loss(model, "dpo", beta=settings["beta"])
    result = learning.train(
        model, settings, rows["train"], rows["test"], folder, params=tuned, loss_fn=loss_fn, title="  DPO"
    )
    records = log.read(folder / "metrics.jsonl")
    return result | {name: learning.curve(records, "held_out", name) for name in ("accuracy", "margin")}


STAGE = Stage(
    name="dpo",
    title="DPO: the pairs teach the policy directly",
    run=run,
    needs=("tokenizer", "tune", "pairs"),
    reads=("model", "pairs", "dpo"),
    makes=("checkpoints", "metrics.jsonl"),
)
