"""Stages 5 to 7: instruction tuning on tasks about documented functions: all weights, LoRA, a soft prompt."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage, read_lines
from research import weights
from research.data.packing import Example
from research.data.rows import PackedRows
from research.data.templates import ALPACA_WITHOUT_INPUT, encode_completion
from research.data.virtual import with_virtual
from research.weights.prompts import virtual_ids


def question(prompt: str) -> str:
    """A task's prompt as the model reads it."""
    return ALPACA_WITHOUT_INPUT.format(instruction=prompt).split("\n\n", 1)[1]


def examples(records: list[dict[str, Any]], pieces: Any, length: int) -> list[Example]:
    """Token ids with the completion marked; what does not fit a row is left out."""
    coded = [encode_completion(question(r["prompt"]), r["completion"], pieces, boundary="separate") for r in records]
    return [example for example in coded if len(example.tokens) <= length]


def stage(name: str, title: str) -> Stage:
    """Tuning with the settings `config[name]`, whose `peft` says what learns."""

    def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
        pieces = tokenizer.load(inputs["tokenizer"])
        model = learning.model_of(config, pieces)
        length, source = model.config.max_length, inputs["documents"].folder
        virtual = virtual_ids(weights.structure(model.abstract(), config[name]["peft"], config=model.config))
        sides = {}
        for side in ("train", "test"):
            coded = examples(read_lines(source / f"{side}_tasks.jsonl"), pieces, length - len(virtual))
            sides[side] = [with_virtual(example, virtual) for example in coded]
        rows = {side: PackedRows(found, length, pad_id=pieces.pad_id) for side, found in sides.items()}
        base = learning.load_weights(inputs["pretrain"], model)
        result = learning.train(model, config[name], rows["train"], rows["test"], folder, params=base, title="  tuning")
        return result | {"examples": {side: len(found) for side, found in sides.items()}, "virtual": len(virtual)}

    return Stage(
        name=name,
        title=title,
        run=run,
        needs=("documents", "tokenizer", "pretrain"),
        reads=("model", name),
        makes=("checkpoints", "metrics.jsonl"),
    )


FULL = stage("tune", "Instruction tuning of all weights: loss on completions only")
LORA = stage("lora", "The same through LoRA: small updates beside frozen weights")
PROMPT = stage("prompt", "The same through a soft prompt: virtual tokens before a frozen model")

# What the reports call the weights that each stage leaves.
NAMES = {"pretrain": "before tuning", "tune": "after tuning", "lora": "after LoRA", "prompt": "after prompt tuning"}
