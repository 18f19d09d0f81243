"""What is quantized in `experiments.quantize`: a model, what calibrates it, how it is tuned, scored and timed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.cells import Cell, sweep
from experiments.labelled import batches_of, read_task
from experiments.loading import encoder_folder, load
from experiments.sentiment import made_once, tuned
from experiments.speed import least_seconds, speed
from experiments.texts import own_samples, read_part, windows
from experiments.trial import linear_decay, train
from research import weights
from research.core import tree
from research.core.names import meant
from research.data import load_tokenizer
from research.data.packing import Example, pad_batch
from research.data.rows import PackedRows
from research.data.sources import Batches, Stream
from research.decoding import prepare
from research.interop import load_pretrained
from research.interop.run import save_run
from research.models import Model, ModelConfig, build
from research.ops.cache import to_int8
from research.recipes.classify import classification_loss
from research.recipes.pretrain import language_model_loss
from research.training.evaluate import make_evaluate
from research.training.step import LossFn
from research.weights.quantize import packed_weights

SST2 = "SST-2"
HEADERS = {
    "loss": "nats",
    "loss/published stories": "published stories",
    "accuracy": "accuracy",
    "prefill": "read, tokens/s",
    "decode": "written, tokens/s",
    "sentences": "sentences/s",
}
PLAIN = "f32"  # the form that others are compared with
PUBLISHED = {"fenced": "stories260K/stories260K.md.txt"}


@dataclass(frozen=True)
class Cached:
    """The model reading a text through a cache in int8, as decoding does."""

    model: Model

    def apply(self, params: Any, batch: Mapping[str, Any], rng: Any = None) -> Any:
        """The forward pass behind an empty cache."""
        del rng
        cache = to_int8(self.model.start(params, batch, batch["tokens"].shape[1]))
        feed = {name: batch[name] for name in ("tokens", "segment_ids", "positions")}
        return self.model.apply(params, feed, cache=cache)

    def projection(self, params: Any, hidden: Any) -> Any:
        """The model's own."""
        return self.model.projection(params, hidden)


@dataclass
class Stories:
    """stories260K; its own samples stand for the text that it was trained on."""

    config: ModelConfig
    params: Any
    settings: Mapping[str, Any]
    bos: int
    train: list[Example]
    held: dict[str, list[Example]]
    QUALITY = ("loss", "loss/published stories")
    SPEED = ("prefill", "decode")

    @classmethod
    def make(cls, settings: Mapping[str, Any], root: Path, workdir: Path, console: Console) -> "Stories":
        """Reads the model and lets it write its samples."""
        loaded = load(str(root / "stories260K" / "checkpoint_v1.bin"), None, "f32")
        model, bos, length = loaded.model, loaded.tokenizer.bos_id, settings["length"]
        draw = partial(own_samples, model, loaded.params, bos, settings["samples"], length)
        made = {**settings["samples"], "length": length, "base": tree.fingerprint(loaded.params)}
        texts = sweep([Cell({"made": "own samples"}, made, draw)], workdir, console)[0]["texts"]
        kept = windows(texts, bos, length)
        cut = len(kept) * 3 // 4
        held = {"own samples": kept[cut:]}
        held["published stories"] = read_part(PUBLISHED, root, loaded.tokenizer, length)["heldout"]
        return cls(model.config, tree.stack(loaded.params), settings, bos, kept[:cut], held)

    def hidden(self, model: Model) -> Callable[[Any, Any], Any]:
        """What calibration runs."""
        return lambda params, batch: model.apply(params, batch).hidden

    def calibration(self, seed: int) -> list[dict[str, Any]]:
        """Full rows of training samples laid end to end, in an order of the seed."""
        rows, length = self.settings["calibration_rows"], self.settings["length"]
        order = np.random.default_rng(seed).permutation(len(self.train))
        ids = np.concatenate([self.train[i].tokens for i in order])
        ids = np.resize(ids, rows * length).reshape(rows, length).astype(np.int32)
        return [{"tokens": ids[i : i + 4]} for i in range(0, rows, 4)]

    def loss(self, model: Model) -> LossFn:
        """What it was trained with."""
        return language_model_loss(model)

    def batches(self, seed: int, steps: int) -> list[Any]:
        """Training samples, packed, in an order of the seed."""
        rows = PackedRows(self.train, self.settings["length"])
        source = Batches(Stream(rows, seed), self.settings["batch_size"])
        return [source.batch(i) for i in range(steps)]

    def score(self, model: Model, params: Any, cache: str) -> dict[str, float]:
        """Nats per token of each held-out text."""
        size, length = self.settings["batch_size"], self.settings["length"]
        held = {name: texts_in_rows(found, size, length) for name, found in self.held.items()}
        reader = Cached(model) if cache else model
        scores = make_evaluate(self.loss(reader), held)(params)
        return {"loss": scores["loss/own samples"], "loss/published stories": scores["loss/published stories"]}

    def speed(self, model: Model, params: Any, cache: str) -> dict[str, float]:
        """Tokens per second of processor time: reading prompts of half the length, and writing behind them."""
        rows, new = self.settings["speed"]["rows"], self.settings["speed"]["new_tokens"]
        prompts = [example.tokens.tolist()[: self.settings["length"] // 2] for example in self.train[:rows]]
        return speed(model, params, prompts, new, cache_dtype=cache, clock=time.process_time)


@dataclass
class Sentences:
    """An encoder tuned on SST-2."""

    config: ModelConfig
    params: Any
    settings: Mapping[str, Any]
    rows: dict[str, list]
    QUALITY = ("accuracy", "loss")
    SPEED = ("sentences",)

    @classmethod
    def make(cls, settings: Mapping[str, Any], root: Path, workdir: Path, console: Console) -> "Sentences":
        """Tunes the encoder once and keeps it in workdir/encoder."""
        folder, kept = encoder_folder(settings["model"]), workdir / "encoder"
        described, body, _ = load_pretrained(folder, head="none")
        described = described.replace(head="sequence", pooling="first", head_dense=False, n_labels=2)
        longest = max(settings["lengths"])
        read = read_task("sst2", root, load_tokenizer(folder), longest, settings["rows"], settings["dev_rows"])

        def run() -> dict[str, Any]:
            _, params, costs = tuned(described, body, read["train"], settings)
            save_run(kept, described, params)
            return costs

        cell = Cell({"made": "encoder"}, {k: v for k, v in settings.items() if k in cls.DECIDES}, run)
        return cls(described, made_once(cell, kept, workdir, console)[1], settings, read)

    DECIDES = ("model", "rows", "lengths", "batch_size", "learning_rate", "policy")

    def hidden(self, model: Model) -> Callable[[Any, Any], Any]:
        """What calibration runs."""
        return lambda params, batch: model.apply(params, batch).hidden

    def calibration(self, seed: int) -> list[dict[str, Any]]:
        """Full rows of training sentences side by side, in an order of the seed; the last one of a row is cut."""
        rows, length = self.settings["calibration_rows"], max(self.settings["lengths"])
        order = cycle(np.random.default_rng(seed).permutation(len(self.rows["train"])))
        batch = {name: np.zeros((rows, length), np.int32) for name in ("tokens", "positions", "segment_ids")}
        for row in range(rows):
            at = segment = 0
            while at < length:
                ids = self.rows["train"][next(order)][0][: length - at]
                here, segment = (row, slice(at, at + len(ids))), segment + 1
                batch["tokens"][here], batch["positions"][here] = ids, np.arange(len(ids))
                batch["segment_ids"][here] = segment
                at += len(ids)
        return [batch]

    def loss(self, model: Model) -> LossFn:
        """What it was tuned with."""
        return classification_loss(model)

    def batches(self, seed: int, steps: int) -> list[Any]:
        """Training sentences in an order of the seed, again from the start where there are too few."""
        rng = np.random.default_rng(seed)
        found: list[Any] = []
        while len(found) < steps:
            found += batches_of(self.rows["train"], self.settings, [], rng)
        return found[:steps]

    def score(self, model: Model, params: Any, cache: str) -> dict[str, float]:
        """Accuracy and nats per label on the development sentences."""
        del cache
        scores = make_evaluate(classification_loss(model), self._dev())(params)
        return {name: scores[name] for name in ("accuracy", "loss")}

    def speed(self, model: Model, params: Any, cache: str) -> dict[str, float]:
        """Sentences per second of processor time."""
        del cache
        classify = jax.jit(lambda p, b: model.classify(p, model.apply(p, b), b))
        batches = [{k: jnp.asarray(v) for k, v in batch.items()} for batch in self._dev()]
        taken = least_seconds(lambda: [classify(params, batch) for batch in batches], time.process_time)
        return {"sentences": len(self.rows["dev"]) / taken}

    def _dev(self) -> list[dict[str, np.ndarray]]:
        return batches_of(self.rows["dev"], self.settings, [], None)


def trained_for(subject: Any, bits: int, seed: int) -> Any:
    """The subject's weights after training for so few bits, not yet rounded."""
    tune, model, key = subject.settings["tune"], build(subject.config, unroll=True), jax.random.key(seed)
    recipe = [{"method": "qat", "bits": bits}, {"method": "full"}]
    params = weights.attach(subject.params, recipe, key)
    rate = tune["learning_rates"][str(bits)]
    return weights.strip(trained(subject.loss(model), params, recipe, subject.batches(seed, tune["steps"]), rate, key))


def trained(loss_fn: LossFn, params: Any, recipe: Any, batches: Sequence[Any], learning_rate: float, key: Any) -> Any:
    """The weights after one step per batch of what the recipe trains, in the form that they had."""
    rule = linear_decay(learning_rate, len(batches), clip=1.0, weight_decay=0.0)
    return train(loss_fn, params, rule, batches, key, trainable=weights.trainable(params, recipe))[0]


def texts_in_rows(examples: Sequence[Example], size: int, length: int) -> list[dict[str, np.ndarray]]:
    """One text a row, padded; the last batch is filled up with rows that count for nothing."""
    batches = []
    for first in range(0, len(examples), size):
        some = [example.tokens for example in examples[first : first + size] if len(example.tokens) > 1]
        ids = [*(tokens[:-1] for tokens in some), *[np.zeros(1, np.int32)] * (size - len(some))]
        batch = pad_batch(ids, length)
        targets = pad_batch([tokens[1:] for tokens in some], length)
        fill = [(0, size - len(some)), (0, 0)]
        batch["targets"] = np.pad(targets["tokens"], fill)
        batch["loss_mask"] = np.pad((targets["segment_ids"] > 0).astype(np.float32), fill)
        batches.append(batch)
    return batches


SUBJECTS = {"stories260K": Stories, SST2: Sentences}


def check(subjects: Sequence[str], **grid: Mapping[str, Any]) -> None:
    """Refuses unknown subjects, and a grid (its name tells of what) without the plain form.

    Raises:
      ValueError: names what there is.
    """
    for name in subjects:
        if name not in SUBJECTS:
            raise ValueError(f"unknown subject {name!r}{meant(name, SUBJECTS)}; have {sorted(SUBJECTS)}")
    for what, forms in grid.items():
        if PLAIN not in forms:
            raise ValueError(f"{what} {sorted(forms)} lack {PLAIN!r}, which the others are compared with")


def packed(subject: Any, model: Model, params: Any, recipe: Sequence[Mapping[str, Any]], seed: int) -> Any:
    """Plain weights quantized by a recipe, which is calibrated on the subject's text."""
    run, batches = subject.hidden(model), subject.calibration(seed)
    return weights.quantize(params, recipe, run=run, batches=batches, config=model.config)


def measured(subject: Any, model: Model, params: Any, cache: str, timed: bool) -> dict[str, Any]:
    """Quality, bits, bytes and, where `timed`, speed of weights in any form."""
    ready = prepare(model, params)
    kernels = {path: node for path, node in packed_weights(params).items() if not node.table}
    plain = 8 * model.policy.compute.itemsize
    figures = subject.score(model, ready, cache)
    if timed:
        figures |= subject.speed(model, ready, cache)
    return {**figures, "bits": weights.bits_per_weight(kernels) if kernels else plain, "bytes": tree.nbytes(ready)}
