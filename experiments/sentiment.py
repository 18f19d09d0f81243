"""A reward that reads: an encoder tuned on SST-2 says how positive a text is. It has its own tokenizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments.cells import Cell, sweep
from experiments.labelled import batches_of, read_task
from experiments.loading import encoder_folder
from experiments.trial import linear_decay, train
from research.core.names import meant
from research.data import load_tokenizer
from research.data.packing import pad_batch
from research.interop import load_pretrained
from research.interop.run import is_run, load_run, save_run
from research.models import Model, ModelConfig, build
from research.recipes.classify import accuracy, classification_loss, scores


def tuned(
    described: ModelConfig, body: Any, rows: Sequence[Any], settings: Mapping[str, Any]
) -> tuple[Model, Any, dict[str, Any]]:
    """A pretrained encoder with a new head after one pass over labelled rows, its weights, and what that cost."""
    model = build(described, policy=settings["policy"], unroll=True)
    key = jax.random.key(0)
    params = {**body, "head": jax.jit(model.init)(jax.random.fold_in(key, 0))["head"]}
    batches = batches_of(rows, settings, [], np.random.default_rng(0))
    rule = linear_decay(settings["learning_rate"], len(batches))
    loss, key = classification_loss(model), jax.random.fold_in(key, 2)
    params, costs = train(loss, params, rule, batches, key, policy=model.policy)
    return model, params, costs


def made_once(cell: Cell, kept: Path, workdir: Path, console: Console) -> tuple[dict[str, Any], Any]:
    """What the cell found, and the weights that it stored in `kept`; it runs again where they are missing."""
    if not (kept.is_dir() and is_run(kept)):
        (workdir / cell.file()).unlink(missing_ok=True)
    return sweep([cell], workdir, console)[0], load_run(kept)[1]


@dataclass(frozen=True)
class Sentiment:
    """Texts of prompts and answers -> log p(positive) / p(negative) of both together."""

    model: Model
    params: Any
    tokenizer: Any
    length: int

    @classmethod
    def make(cls, part: str, settings: Mapping[str, Any], root: Path, workdir: Path, console: Console) -> "Sentiment":
        """Tunes the encoder once on a part of the rows and keeps it in workdir/encoder_PART, its accuracy beside it.

        Raises:
          ValueError: an unknown part, or one without rows.
        """
        if part not in settings["parts"]:
            raise ValueError(
                f"unknown part {part!r} of SST-2{meant(part, settings['parts'])}; have {[*settings['parts']]}"
            )
        first, rows = settings["parts"][part]
        folder, kept = encoder_folder(settings["model"]), workdir / f"encoder_{part}"
        tokenizer = load_tokenizer(folder)
        described, body, _ = load_pretrained(folder, head="none")
        described = described.replace(head="sequence", pooling="first", head_dense=False, n_labels=2)

        chosen = {**settings, "parts": {part: (first, rows)}}

        def run() -> dict[str, Any]:
            longest = max(settings["lengths"])
            read = read_task("sst2", root, tokenizer, longest, first + rows if rows else 0, settings["dev_rows"])
            if len(read["train"]) <= first:
                raise ValueError(f"part {part!r} begins at row {first} of {len(read['train'])}")
            model, params, costs = tuned(described, body, read["train"][first:], settings)
            save_run(kept, described, params)
            return costs | {"accuracy": accuracy(model, params, batches_of(read["dev"], settings, [], None))[0]}

        found, params = made_once(Cell({"made": f"encoder {part}"}, chosen, run), kept, workdir, console)
        console.print(f"{part}: the logit of {folder.name} tuned on SST-2, accuracy {found['accuracy']:.3f}")
        return cls(build(described, policy=settings["policy"], unroll=True), params, tokenizer, settings["read_length"])

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        texts = [self.tokenizer.encode(p + a) for p, a in zip(prompts, answers, strict=True)]
        first, last, room = self.tokenizer.bos_id, self.tokenizer.eos_id, self.length - 2
        batch = pad_batch([[first, *ids[:room], last] for ids in texts], self.length)
        batch["token_types"] = np.zeros_like(batch["tokens"])
        against, positive = np.asarray(scores(self.model, self.params, batch)).T
        return positive - against
