"""Stage 12: the evaluation card of the tuned model: how right, how sure, how easily thrown, how fast."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.stages import learning, shots, tokenizer
from experiments.stages.stage import Done, Stage
from research.evaluation import ask
from research.evaluation.card import asker, measure
from research.evaluation.efficiency import efficiency

NOTES = (
    "Questions about held-out functions; the right answer stands among answers to others, without any example.",
    "Toxicity is not measured: its scorer learns from downloaded data, which this job does without.",
)


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """The card as JSON values."""
    del folder
    settings = config["card"]
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    params = learning.load_weights(inputs["tune"], model)
    tasks = shots.chosen(inputs["documents"].folder, config["shots"], *ask.count(model, params, pieces))
    put = asker(model, params, pieces, batch_size=config["shots"]["batch_size"])
    costs = efficiency(model, params, pieces, settings["tokens"], settings["batches"])
    return {"card": asdict(measure("after tuning", put, tasks, efficiency=costs, notes=NOTES))}


STAGE = Stage(
    name="card",
    title="Evaluation card: accuracy, calibration, robustness, fairness, efficiency",
    run=run,
    needs=("documents", "tokenizer", "tune"),
    reads=("model", "shots", "card"),
    alone=True,
)
