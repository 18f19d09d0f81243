"""Stage 4: bits per byte of held-out text, beside a compressor and a counting model given the same training text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage, read_lines
from research.evaluation import ngram_bits_per_byte, xz_bits_per_byte
from research.evaluation.likelihood import score


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Every method pays for all bytes of the held-out documents and for their ends."""
    del folder
    texts = {
        name: [d["text"] for d in read_lines(inputs["documents"].folder / f"{name}.jsonl")]
        for name in ("train", "held_out")
    }
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    read = score(model, learning.load_weights(inputs["pretrain"], model), pieces, texts["held_out"])
    xz = xz_bits_per_byte(texts["train"], texts["held_out"])
    ngram = ngram_bits_per_byte(texts["train"], texts["held_out"], context=config["ngram_context"])
    per_token = float(read.nats.sum() / read.tokens.sum())
    size = int(read.bytes.sum())
    return {"model": read.bits_per_byte, "xz": xz, "ngram": ngram, "bytes": size, "nats_per_token": per_token}


STAGE = Stage(
    name="compression",
    title="Bits per byte of held-out text: the model, xz and an n-gram",
    run=run,
    needs=("documents", "tokenizer", "pretrain"),
    reads=("model", "ngram_context"),
)
