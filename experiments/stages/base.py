"""The two stages of a base model: one tokenizer for all of them, one training run each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage
from research.data import python_docs
from research.data.build import build_rows
from research.data.sentencepiece_tokenizer import train_sentencepiece
from research.data.sources import one_pass
from research.interop import save_pretrained
from research.recipes.pretrain import language_model_loss
from research.training.evaluate import make_evaluate


def make_tokenizer(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Writes a tokenizer with a mask token and sentinels, trained on every n-th training document."""
    del inputs
    settings = config["tokenizer"]
    found = [*python_docs.corpus(), *python_docs.sources(tests=False)]
    train, _ = python_docs.split(found, settings["heldout"])
    texts = [document.text for document in train[:: settings["every"]]]
    made = train_sentencepiece(
        texts,
        settings["vocab_size"],
        kind="bpe",
        special_tokens=("<mask>",),
        sentinels=settings["sentinels"],
        max_text_length=settings["max_text_length"],
    )
    made.save(folder)
    return {"vocab_size": made.vocab_size, "bytes": sum(len(text.encode()) for text in texts)}


def train_base(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Trains the model, scores all held-out rows once and writes a Hugging Face folder."""
    pieces = tokenizer.load(inputs["base_tokenizer"])
    model = learning.model_of(config, pieces)
    settings = config["pretrain"]
    rows = {split: build_rows(config["data"], pieces, split) for split in ("train", "heldout")}
    result = learning.train(model, settings, rows["train"], rows["heldout"], folder, title=f"  {config['name']}")
    params = learning.load_weights(Done(folder, result, 0.0, ""), model)
    batches = list(one_pass(rows["heldout"], settings["batch_size"]))[: settings["final_batches"] or None]
    scored = make_evaluate(language_model_loss(model), batches)(params)
    save_pretrained(folder / "model", model.config, params, tokenizer=pieces)
    return result | {name: scored[name] for name in ("loss", "accuracy", "weight")}


STAGES: tuple[Stage, ...] = (
    Stage(
        name="base_tokenizer",
        title="Tokenizer of the base models",
        run=make_tokenizer,
        reads=("tokenizer",),
        makes=("tokenizer.model",),
    ),
    Stage(
        name="base",
        title="Training",
        run=train_base,
        needs=("base_tokenizer",),
        reads=("name", "model", "data", "pretrain"),
        makes=("checkpoints", "metrics.jsonl", "model"),
    ),
)
