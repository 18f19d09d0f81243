"""Stage 25: what the job made, as a folder that `experiments.playground` opens."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.stages import learning, tokenizer
from experiments.stages.rag import INSTRUCTION
from experiments.stages.stage import Done, Stage, read_lines, write_lines
from research.interop import save_pretrained

GUIDELINES = """Which answer would help a programmer most? Rank the one that is right and short first, one that is \
wrong but near after it, and one that says nothing last. Equal ones may share a rank.
"""
LABELLED = 40  # questions; some minutes of a labeller


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Writes the tuned model, answers to rank, the indexed documents with their reader, and the agent's trace."""
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    tuned = learning.load_weights(inputs["tune"], model)
    save_pretrained(folder / "model", model.config, tuned, tokenizer=pieces)
    for name in ("documents", "reader"):
        shutil.copytree(inputs["rag"].folder / name, folder / name, dirs_exist_ok=True)
    samples = completions(read_lines(inputs["pairs"].folder / "test.jsonl"))[:LABELLED]
    (folder / "labels").mkdir(exist_ok=True)
    write_lines(folder / "labels" / "samples.jsonl", samples)
    (folder / "labels" / "guidelines.md").write_text(GUIDELINES, encoding="utf-8")
    trace = inputs["reasoning"].result.get("trace")
    if trace:
        (folder / "traces").mkdir(exist_ok=True)
        write_lines(folder / "traces" / "reasoning.jsonl", [trace])
    rag = config["rag"]
    answers = {"instruction": INSTRUCTION, "k": rag["k"], "new_tokens": rag["new_tokens"]}
    (folder / "settings.json").write_text(json.dumps({"answers": answers}, indent=1) + "\n", encoding="utf-8")
    return {"samples": len(samples)}


def completions(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Samples as people rank them, from pairs of the same questions."""
    found: dict[str, dict[str, None]] = {}
    for pair in pairs:
        found.setdefault(pair["prompt"], {}).update(dict.fromkeys((pair["chosen"], pair["rejected"])))
    return [{"id": str(i), "prompt": p, "completions": list(c)} for i, (p, c) in enumerate(found.items())]


STAGE = Stage(
    name="site",
    title="What the page shows: the model, answers to rank, documents, a trace",
    run=run,
    needs=("tokenizer", "tune", "pairs", "rag", "reasoning"),
    reads=("model", "rag"),
    makes=("model", "documents", "reader", "labels", "settings.json"),
)
