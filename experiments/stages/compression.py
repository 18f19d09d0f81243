"""Stage 4: bits per byte of held-out text, beside a compressor and a counting model given the same training text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage, read_lines
from research.data.packing import pad_batch
from research.evaluation import bits_per_byte, ngram_bits_per_byte, xz_bits_per_byte
from research.recipes.pretrain import language_model_loss

BATCH = 16


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """Every method pays for all bytes of the held-out documents and for their ends."""
    del folder
    texts = {
        name: [d["text"] for d in read_lines(inputs["documents"].folder / f"{name}.jsonl")]
        for name in ("train", "held_out")
    }
    pieces = tokenizer.load(inputs["tokenizer"])
    model = learning.model_of(config, pieces)
    nats, tokens = total_nats(model, learning.load_weights(inputs["pretrain"], model), pieces, texts["held_out"])
    size = sum(len(text.encode()) for text in texts["held_out"])
    ours = bits_per_byte(nats, size)
    xz = xz_bits_per_byte(texts["train"], texts["held_out"])
    ngram = ngram_bits_per_byte(texts["train"], texts["held_out"], context=config["ngram_context"])
    return {"model": ours, "xz": xz, "ngram": ngram, "bytes": size, "nats_per_token": nats / tokens}


def total_nats(model: Any, params: Any, pieces: Any, texts: list[str]) -> tuple[float, int]:
    """Σ −ln p over all tokens of the texts and their end tokens, and how many they are.

    Documents are read in windows that overlap by half: a token is scored once, in the window in which it sees the
    most, so every token but the first ones of a document has at least half a window before it.
    """
    length = model.config.max_length
    coded = [pieces.encode(text, bos=True, eos=True, specials=False) for text in texts]
    windows = [window for ids in coded for window in overlapping(ids, length)]
    loss_fn = language_model_loss(model, chunk=length)
    loss = jax.jit(lambda weights, batch: loss_fn(weights, batch, None)[0])
    total, count = 0.0, 0
    for first in range(0, len(windows), BATCH):
        chosen = windows[first : first + BATCH]
        chosen += [([0], [0], 1)] * (BATCH - len(chosen))  # padding keeps one shape, so one program
        batch = pad_batch([tokens for tokens, _, _ in chosen], length)
        batch["targets"] = pad_batch([targets for _, targets, _ in chosen], length)["tokens"]
        mask = np.zeros(batch["tokens"].shape, np.float32)
        for row, (tokens, _, skipped) in enumerate(chosen):
            mask[row, skipped : len(tokens)] = 1
        total += float(loss(params, batch | {"loss_mask": mask}))
        count += int(mask.sum())
    return total, count


def overlapping(ids: list[int], length: int) -> list[tuple[list[int], list[int], int]]:
    """Windows (tokens, targets, how many leading targets an earlier window has scored) over one document."""
    tokens, targets = ids[:-1], ids[1:]
    found, scored, start = [], 0, 0
    while scored < len(targets):
        end = min(start + length, len(targets))
        found.append((tokens[start:end], targets[start:end], scored - start))
        scored, start = end, start + length // 2
    return found


STAGE = Stage(
    name="compression",
    title="Bits per byte of held-out text: the model, xz and an n-gram",
    run=run,
    needs=("documents", "tokenizer", "pretrain"),
    reads=("model", "ngram_context"),
)
