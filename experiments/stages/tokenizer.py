"""Stage 2: a SentencePiece model of the training documents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.stages.stage import Done, Stage, read_lines
from research.data.sentencepiece_tokenizer import SentencePieceTokenizer, train_sentencepiece


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Writes tokenizer.model and its companions; counts tokens on both sides of the split."""
    source = inputs["documents"].folder
    texts = {name: [d["text"] for d in read_lines(source / f"{name}.jsonl")] for name in ("train", "held_out")}
    settings = config["tokenizer"]
    tokenizer = train_sentencepiece(
        texts["train"],
        settings["vocab_size"],
        kind=settings["kind"],
        seed_size=settings["seed_size"],
        max_text_length=settings["max_text_length"],
    )
    tokenizer.save(folder)
    counts = [sum(len(tokenizer.encode(text)) for text in texts[name]) for name in ("train", "held_out")]
    size = sum(len(text.encode()) for text in texts["held_out"])
    return {"vocab_size": tokenizer.vocab_size, "tokens": counts, "bytes_per_token": size / counts[1]}


def load(done: Done) -> SentencePieceTokenizer:
    """The tokenizer of a finished stage."""
    return SentencePieceTokenizer.load(done.folder / "tokenizer.model")


STAGE = Stage(
    name="tokenizer",
    title="Tokenizer: SentencePiece pieces of the training text",
    run=run,
    needs=("documents",),
    reads=("tokenizer",),
    makes=("tokenizer.model",),
)
