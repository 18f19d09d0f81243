"""Stage 9: what tuning costs: bits per byte of the held-out documents, read by the model before and after."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage, read_lines
from experiments.stages.tune import NAMES
from research import weights
from research.evaluation.likelihood import score


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """{stage: bits per byte} for the pre-trained model and every tuned one, plain text without any prompt."""
    del folder
    texts = [d["text"] for d in read_lines(inputs["documents"].folder / "held_out.jsonl")]
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    found = {"pretrain": inputs["compression"].result["model"]}
    for stage in NAMES:
        if stage not in found:
            tuned = weights.merge(learning.load_weights(inputs[stage], model))
            found[stage] = score(model, tuned, pieces, texts).bits_per_byte
    return {"bits_per_byte": found}


STAGE = Stage(
    name="forgetting",
    title="Forgetting: the documents again, after tuning",
    run=run,
    needs=("documents", "tokenizer", "compression", *NAMES),
    reads=("model",),
)
