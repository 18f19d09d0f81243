"""Texts to unit vectors by an encoder or a decoder: what `apps.retrieval` calls an `Embed`.

Folders are those of `sentence-transformers`, in and out. Texts of like length are encoded together, in a few compiled
shapes.

B batch · T length · D width
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core import tree
from research.core.types import Array, Batch, Params
from research.data import load_tokenizer
from research.data.corpus import ends
from research.data.packing import pad_batch
from research.interop import load_pretrained, save_pretrained
from research.interop.folder import read_json, write_json
from research.models import Model, build
from research.ops.pooling import MODES, pool

STEP = 8  # rows are padded to multiples of this many tokens
TOKENS, CPU_TOKENS = 16_384, 1024  # of a batch, padding counted; a core's cache holds few

PARTS = ("Transformer", "Pooling", "Normalize")
CHAIN, TEXTS, STATES = "modules.json", "sentence_bert_config.json", "1_Pooling"
PROMPTS = "config_sentence_transformers.json"
OLD = {  # one truth value for each way of pooling
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Embedder:
    """texts -> [N, D] float32 rows of length 1: the pooled states of a model.

    Attributes:
      name: of its own weights, length and pooling; a store refuses the vectors of another.
      length: the most tokens of a text, those around it counted; what is beyond is cut off.
      pooling: see `ops.pooling.pool`. lowercase: whether texts are lower-cased first. prefix: goes before every text.
    """

    model: Model
    params: Params
    tokenizer: Any
    length: int
    pooling: str = "mean"
    lowercase: bool = False
    prefix: str = ""

    def __post_init__(self) -> None:
        kind, most = self.model.config.kind, self.model.config.max_length
        if kind == "encoder_decoder":
            raise ValueError("an embedder is an encoder or a decoder; this model is an encoder-decoder")
        around = sum(ends(self.tokenizer, None, None))
        if not around < self.length <= most:
            raise ValueError(
                f"an embedder's length must be above the {around} tokens around a text and at most the model's {most}; "
                f"given {self.length}"
            )

    @cached_property
    def name(self) -> str:
        told = (tree.fingerprint(tree.stack(self.params)), self.length, self.pooling, self.lowercase, self.prefix)
        return f"{self.model.config.family}-{hashlib.sha256(repr(told).encode()).hexdigest()[:12]}"

    @property
    def width(self) -> int:
        return self.model.config.d_model

    def encode(self, text: str) -> list[int]:
        """A text's tokens, with the begin and end token where the tokenizer has them."""
        bos, eos = ends(self.tokenizer, None, None)
        text = self.prefix + text
        ids = self.tokenizer.encode(text.lower() if self.lowercase else text)[: self.length - bos - eos]
        return [self.tokenizer.bos_id] * bos + ids + [self.tokenizer.eos_id] * eos

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        # Two at a time: some operations use one core of a CPU, which begins a program only when the one before is done.
        with ThreadPoolExecutor(2) as pool:
            rows = list(pool.map(self.encode, texts))
            found = np.zeros((len(rows), self.width), np.float32)

            def fill(part: tuple[list[int], int, int]) -> None:
                some, size, width = part
                batch = pad_batch([rows[i] for i in some] + [[]] * (size - len(some)), width)
                found[some] = np.asarray(unit_vectors(self.model, self.pooling, self.params, batch))[: len(some)]

            list(pool.map(fill, self._batches([len(row) for row in rows])))
        return found

    def _batches(self, lengths: Sequence[int]) -> list[tuple[list[int], int, int]]:
        """Which rows, in a batch of how many, how wide: the longest first, those of like length together."""
        left = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        most, parts = CPU_TOKENS if jax.default_backend() == "cpu" else TOKENS, []
        while left:
            width = min(-(-max(lengths[left[0]], 1) // STEP) * STEP, self.length)
            # Full batches, or the next power of two, so that there are few programs.
            size = min(max(1, most // width), 1 << (len(left) - 1).bit_length())
            parts.append((left[:size], size, width))
            left = left[size:]
        return parts

    def save(self, folder: str | Path) -> None:
        """Writes a folder that `load_embedder` and `sentence-transformers` read."""
        folder = Path(folder)
        save_pretrained(folder, self.model.config, self.params, tokenizer=self.tokenizer)
        paths = ("", STATES, "2_Normalize")
        chain = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{part}"}
            for i, (path, part) in enumerate(zip(paths, PARTS, strict=True))
        ]
        (folder / CHAIN).write_text(json.dumps(chain, indent=2) + "\n", encoding="utf-8")
        write_json(folder / TEXTS, {"max_seq_length": self.length, "do_lower_case": self.lowercase})
        (folder / STATES).mkdir(exist_ok=True)
        write_json(folder / STATES / "config.json", {"embedding_dimension": self.width, "pooling_mode": self.pooling})
        if self.prefix:
            prompts = {"prompts": {"text": self.prefix}, "default_prompt_name": "text"}
            write_json(folder / PROMPTS, prompts)


@partial(jax.jit, static_argnums=(0, 1))
def unit_vectors(model: Model, pooling: str, params: Params, batch: Batch) -> Array:
    """[B, D]: the pooled states of every row, of length 1."""
    pooled = pool(model.apply(params, batch).hidden, batch["segment_ids"], pooling)
    return pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)


def load_embedder(folder: str | Path, *, policy: str = "f32") -> Embedder:
    """An embedder from a folder of `sentence-transformers`, or of an encoder alone, whose states are then averaged.

    policy: "f32" gives the vectors of `sentence-transformers` to a cosine of 1e-5, "bf16" products of bfloat16.

    Raises:
      ValueError: it has parts beside a model, one way of pooling and a normalization.
    """
    folder = Path(folder)
    config, params, _ = load_pretrained(folder, head="none")
    texts = _settings(folder / TEXTS)
    tokenizer_config = _settings(folder / "tokenizer_config.json")
    lengths = (texts.get("max_seq_length"), tokenizer_config.get("model_max_length"))
    told = _settings(folder / PROMPTS)
    return Embedder(
        build(config, policy=policy, unroll=True),
        tree.unstack(params),
        load_tokenizer(folder),
        length=int(min(config.max_length, next((n for n in lengths if n), config.max_length))),
        pooling=_pooling(folder),
        lowercase=bool(texts.get("do_lower_case")),
        prefix=told.get("prompts", {}).get(told.get("default_prompt_name"), ""),
    )


def _settings(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _pooling(folder: Path) -> str:
    """The way of pooling that a folder's list of modules asks for."""
    if not (folder / CHAIN).is_file():
        return "mean"
    chain = json.loads((folder / CHAIN).read_text(encoding="utf-8"))
    parts = [module["type"].rsplit(".", 1)[-1] for module in chain]
    if parts not in (list(PARTS[:2]), list(PARTS)):
        raise ValueError(f"{folder / CHAIN} has the parts {parts}; an embedder has {list(PARTS)}, the last one or not")
    path = folder / chain[1]["path"] / "config.json"
    settings = read_json(path)
    found = settings.get("pooling_mode")
    if found is None:
        found = [OLD.get(key, key) for key, on in settings.items() if key.startswith("pooling_mode_") and on]
    found = [found] if isinstance(found, str) else found
    if len(found) != 1 or found[0] not in MODES or settings.get("include_prompt") is False:
        raise ValueError(f"{path} asks for {settings}; an embedder pools in one of the ways {list(MODES)}")
    return found[0]
