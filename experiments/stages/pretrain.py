"""Stage 3: a small decoder learns to predict the next token of packed documents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage, read_lines
from research.data.corpus import TokenCorpus
from research.data.rows import WindowRows


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Trains on windows over all documents laid end to end; attention stays within a document."""
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    rows = {}
    for name in ("train", "held_out"):
        texts = [d["text"] for d in read_lines(inputs["documents"].folder / f"{name}.jsonl")]
        rows[name] = WindowRows(TokenCorpus.from_texts(texts, pieces), model.config.max_length)
    return learning.train(model, config["pretrain"], rows["train"], rows["held_out"], folder, title="  pre-training")


STAGE = Stage(
    name="pretrain",
    title="Pre-training: next-token prediction on packed documents",
    run=run,
    needs=("documents", "tokenizer"),
    reads=("model", "pretrain"),
    makes=("checkpoints", "metrics.jsonl"),
)
