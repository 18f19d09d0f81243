"""Hugging Face folders to parameters and back: no torch, one tensor at a time, every key accounted for."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from research.core import dtypes, tree
from research.core.types import Params
from research.interop.card import Card, write_card
from research.interop.folder import open_folder, read_json, write_json
from research.interop.hf_config import config_from_hf, config_to_hf, family_of
from research.interop.hf_read import read_params
from research.interop.hf_write import write_params
from research.interop.hub import resolve
from research.models import ModelConfig

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


@dataclass(frozen=True)
class Extras:
    """What travels beside the weights.

    Attributes:
      folder: where the files are.
      hf_config: config.json as it stands; pass it to `save_pretrained` to keep label names and the like.
      generation: generation_config.json, or None.
      tokenizer_files: names of the tokenizer's files in `folder`.
      unread: weights of the file that this head has no use for.
      fresh: paths of our weights that the file lacks (a new head); they are freshly initialised.
    """

    folder: Path
    hf_config: Mapping[str, Any]
    generation: Mapping[str, Any] | None = None
    tokenizer_files: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()


class Pretrained(NamedTuple):
    """A loaded model."""

    config: ModelConfig
    params: Params
    extras: Extras


class SavesItself(Protocol):
    """A tokenizer that writes its own files."""

    def save(self, directory: Any) -> Any: ...


def load_pretrained(
    path_or_id: str | os.PathLike[str],
    *,
    dtype: str | np.dtype | None = None,
    head: str | None = None,
    key: jax.Array | None = None,
    ignore: Sequence[str] = (),
    revision: str | None = None,
) -> Pretrained:
    """A model from a Hugging Face folder or hub id, without torch.

    Args:
      path_or_id: a folder with config.json and safetensors, or a hub id ("gpt2", "owner/name").
      dtype: "f32", "bf16", ...; None keeps the stored types.
      head: "lm", "mlm", "sequence", "token", "scalar" or "none" instead of the stored one; weights that the file
        lacks for it are drawn from `key` and named in `extras.fresh`.
      ignore: keys of config.json known to change no computation.
      revision: branch, tag or commit on the hub.

    Raises:
      FileNotFoundError: no such folder or model, or only pickled weights in it.
      ValueError: an unsupported setting, or tensors that do not fit; one message lists all of them.
    """
    folder = resolve(path_or_id, revision=revision)
    hf = read_json(folder / "config.json")
    config = config_from_hf(hf, head=head, ignore=ignore)
    tensors = open_folder(folder)
    config = family_of(config.family).adjust(config, tensors)
    kind = dtypes.dtype(dtype) if isinstance(dtype, str) else dtype
    params, unread, fresh = read_params(config, tensors, dtype=kind, key=key, new_head=head is not None)
    generation = folder / "generation_config.json"
    extras = Extras(
        folder=folder,
        hf_config=hf,
        generation=read_json(generation) if generation.is_file() else None,
        tokenizer_files=tuple(name for name in TOKENIZER_FILES if (folder / name).is_file()),
        unread=unread,
        fresh=fresh,
    )
    return Pretrained(config, params, extras)


def save_pretrained(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    params: Params,
    *,
    tokenizer: SavesItself | Extras | None = None,
    generation_config: Mapping[str, Any] | None = None,
    card: Card | None = None,
    hf_config: Mapping[str, Any] | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> Path:
    """Writes a folder that `transformers` and `load_pretrained` read: weights, config, tokenizer, generation, card.

    Args:
      params: plain arrays, stacked or unstacked, in any float type; the type is kept.
      tokenizer: an object with `save(folder)`, or the `Extras` of a loaded model, whose files are copied.
      card: the model card; without one, a card says only what the config tells.
      hf_config: config.json of the model this one came from; its neutral keys are kept.
      max_shard_bytes: a larger model is cut into files of at most this size.

    Raises:
      ValueError: transformers cannot express the config, or the parameters are not its own.
      TypeError: a weight is no plain array.
    """
    target = Path(folder)
    values = config_to_hf(config, hf_config)
    target.mkdir(parents=True, exist_ok=True)
    stored = write_params(target, config, params, max_shard_bytes)
    write_json(target / "config.json", values | {"dtype": stored, "torch_dtype": stored})
    write_json(target / "generation_config.json", dict(generation_config or _generation(config)))
    if isinstance(tokenizer, Extras):
        for name in tokenizer.tokenizer_files:
            if (tokenizer.folder / name).resolve() != (target / name).resolve():
                shutil.copyfile(tokenizer.folder / name, target / name)
    elif tokenizer is not None:
        tokenizer.save(target)
    facts = {"parameters": tree.count(params), "family": config.family, "head": config.head, "stored as": stored}
    write_card(target, card or Card(title=target.name, facts=facts))
    return target


def _generation(config: ModelConfig) -> dict[str, Any]:
    ids = {"bos_token_id": config.bos_id, "eos_token_id": config.eos_id, "pad_token_id": config.pad_id}
    ids["decoder_start_token_id"] = config.decoder_start_id
    return {name: value for name, value in ids.items() if value >= 0}
