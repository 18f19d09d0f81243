"""Stage 5: instruction tuning on tasks about documented functions; only completions are learned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage, read_lines
from research.data.packing import Example
from research.data.rows import PackedRows
from research.data.templates import ALPACA_WITHOUT_INPUT, encode_completion


def question(prompt: str) -> str:
    """A task's prompt as the model reads it."""
    return ALPACA_WITHOUT_INPUT.format(instruction=prompt).split("\n\n", 1)[1]


def examples(records: list[dict[str, Any]], pieces: Any, length: int) -> list[Example]:
    """Token ids with the completion marked; what does not fit a row is left out."""
    coded = [encode_completion(question(r["prompt"]), r["completion"], pieces, boundary="separate") for r in records]
    return [example for example in coded if len(example.tokens) <= length]


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Tunes all weights of the pre-trained model on packed examples."""
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    length, source = model.config.max_length, inputs["documents"].folder
    sides = {name: examples(read_lines(source / f"{name}_tasks.jsonl"), pieces, length) for name in ("train", "test")}
    rows = {name: PackedRows(side, length, pad_id=pieces.pad_id) for name, side in sides.items()}
    base = learning.load_weights(inputs["pretrain"])
    result = learning.train(model, config["tune"], rows["train"], rows["test"], folder, params=base, title="  tuning")
    return result | {"examples": {name: len(side) for name, side in sides.items()}}


STAGE = Stage(
    name="tune",
    title="Instruction tuning: loss on completions only",
    run=run,
    needs=("documents", "tokenizer", "pretrain"),
    reads=("model", "tune"),
    makes=("checkpoints", "metrics.jsonl"),
)
