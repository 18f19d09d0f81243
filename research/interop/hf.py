"""Hugging Face folders to parameters and back: no torch, one tensor at a time, every key accounted for."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from research.core import dtypes, tree
from research.core.types import Params
from research.interop.card import Card, write_card
from research.interop.family import Family
from research.interop.folder import Tensors, open_folder, read_json, write_folder, write_json
from research.interop.hf_config import config_from_hf, config_to_hf, family_of
from research.interop.hub import resolve
from research.interop.table import Slot, slots
from research.models import ModelConfig, build

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


@dataclass
class _Account:
    """Which tensor of the file fills which slot, and what is left over."""

    sources: dict[str, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)


def _their_name(name: str, family: Family, known: Mapping[str, Any]) -> str:
    """The name under which the table knows a tensor: older spellings and the bare model's names resolved."""
    for pattern, replacement in family.renames:
        name = re.sub(f"^(?:{pattern})$", replacement, name)
    return family.prefix + name if name not in known and family.prefix + name in known else name


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _same(tensors: Tensors, one: str, other: str | None) -> bool:
    return other is not None and np.array_equal(tensors.read(one), tensors.read(other))


def _account(family: Family, config: ModelConfig, wanted: Mapping[str, Slot], tensors: Tensors) -> _Account:
    known: dict[str, Any] = {**wanted, **family.copies, **family.constants(config)}
    names = {_their_name(name, family, known): name for name in tensors.names}
    result = _Account()
    for theirs, name in names.items():
        if theirs in wanted:
            result.sources[theirs] = name
        elif theirs in family.copies and _same(tensors, name, names.get(family.copies[theirs])):
            continue
        elif theirs in family.constants(config):
            if np.any(tensors.read(name) != family.constants(config)[theirs]):
                result.unequal.append(f"{name} is not the constant that it must be")
        elif _matches(theirs, family.harmless):
            continue
        elif theirs in family.copies and config.head in ("lm", "mlm"):
            result.unequal.append(f"{name} differs from {family.copies[theirs]}, which it repeats in a tied model")
        elif _matches(theirs, family.surplus(config)):
            result.unread.append(name)
        else:
            result.unexpected.append(name)
    _adopt_copies(family, wanted, names, result)
    return result


def _adopt_copies(family: Family, wanted: Mapping[str, Slot], names: Mapping[str, str], result: _Account) -> None:
    """Fills a missing tensor from one that repeats it, as files saved without their first copy need."""
    for copy, original in family.copies.items():
        if original in wanted and original not in result.sources and copy in names and copy not in wanted:
            result.sources[original] = names[copy]


def _refuse(folder: Path, account: _Account, missing: Sequence[str], shapes: Sequence[str]) -> None:
    parts = {
        "missing": missing,
        "unexpected": sorted(account.unexpected),
        "misshaped": shapes,
        "unequal": account.unequal,
    }
    if any(parts.values()):
        said = "; ".join(f"{name} {list(items)}" for name, items in parts.items() if items)
        raise ValueError(f"{folder} does not hold the model that its config.json describes: {said}")


def _misshaped(wanted: Mapping[str, Slot], sources: Mapping[str, str], tensors: Tensors) -> list[str]:
    pairs = ((name, tensors.shape(source), wanted[name].shape) for name, source in sources.items())
    return [f"{name}: given {given}, expected {expected}" for name, given, expected in pairs if given != expected]


def _fill(
    wanted: Mapping[str, Slot], sources: Mapping[str, str], tensors: Tensors, shapes: Mapping[str, Any], dtype: Any
) -> dict[str, jax.Array]:
    """Our weights by path; each is finished and handed to the device before the next is begun."""
    types: dict[str, np.dtype] = {}
    for name, source in sources.items():
        for path in wanted[name].paths:
            given = tensors.dtype(source)
            types[path] = np.dtype(dtype or jnp.promote_types(types.get(path, given), given))
    open_slots = {path: sum(path in wanted[name].paths for name in sources) for path in types}
    hosts: dict[str, np.ndarray] = {}
    done: dict[str, jax.Array] = {}
    for name, source in sources.items():
        slot = wanted[name]
        for path, part in zip(slot.paths, slot.how.load(tensors.read(source)), strict=True):
            host = hosts.setdefault(path, np.empty(shapes[path].shape, types[path]))
            host[... if slot.index is None else slot.index] = part.astype(types[path])
            open_slots[path] -= 1
            if not open_slots[path]:
                done[path] = jnp.asarray(hosts.pop(path))
    return done


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path, value in values.items():
        *parents, leaf = path.split("/")
        node = root
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = value
    return root


def read_params(
    config: ModelConfig,
    tensors: Tensors,
    *,
    dtype: Any = None,
    key: jax.Array | None = None,
    new_head: bool = False,
) -> tuple[Params, tuple[str, ...], tuple[str, ...]]:
    """The parameters that a folder's tensors hold, the tensors left unread, and the paths freshly initialised.

    Args:
      dtype: the type of every weight; None keeps each as it is stored.
      key: for the weights of a new head; new_head: whether the head's weights may be absent.

    Raises:
      ValueError: one message with every missing, unexpected, misshaped and contradicting tensor.
    """
    family = family_of(config.family)
    model = build(config)
    shapes = tree.paths(model.abstract())
    wanted = {slot.name: slot for slot in slots(family.rows(config), model.abstract())}
    account = _account(family, config, wanted, tensors)
    missing = [name for name in wanted if name not in account.sources]
    if new_head:
        account.fresh = [path for name in missing for path in wanted[name].paths if path.startswith("head/")]
        missing = [name for name in missing if not set(wanted[name].paths) <= set(account.fresh)]
    _refuse(tensors.folder, account, missing, _misshaped(wanted, account.sources, tensors))
    values = _fill(wanted, account.sources, tensors, shapes, dtype)
    if account.fresh:
        # Under jit, what is not returned is not computed: only the head is drawn.
        head = jax.jit(lambda k: model.init(k)["head"])(jax.random.key(0) if key is None else key)
        drawn = tree.paths({"head": head})
        kind = dtype or values["embed/tokens/embedding"].dtype
        values |= {path: drawn[path].astype(kind) for path in account.fresh}
    ordered = {path: values[path] for path in shapes}
    return _nested(ordered), tuple(sorted(account.unread)), tuple(account.fresh)


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


def _plain_arrays(params: Params) -> None:
    leaves = jax.tree.leaves(params, is_leaf=lambda x: not isinstance(x, Mapping | tuple | list))
    if strange := sorted({type(leaf).__name__ for leaf in leaves if not hasattr(leaf, "__array__")}):
        raise TypeError(f"weights of type {strange} have no form in a checkpoint; fold them into arrays first (ops.fold)")


def _stacked(params: Params) -> Params:
    """The same tree with layers in runs, whichever of the two forms was given."""
    stacks = [side for side in params.values() if isinstance(side, Mapping) and tree.LAYERS in side]
    return tree.stack(params) if any(not isinstance(side[tree.LAYERS], Mapping) for side in stacks) else params


def write_params(folder: Path, config: ModelConfig, params: Params, max_shard_bytes: int) -> str:
    """Writes the weights in the family's names and returns the name of their type.

    Raises:
      ValueError: the parameters are not those of `config`.
    """
    family = family_of(config.family)
    _plain_arrays(params)
    params = _stacked(params)
    leaves = tree.paths(params)
    expected = {tree.generic(path) for path in tree.paths(build(config).abstract())}
    if wrong := sorted(expected ^ {tree.generic(path) for path in leaves}):
        raise ValueError(f"these parameters are not those of the config; they differ in {wrong}")
    by_name = {slot.name: slot for slot in slots(family.rows(config), params)}
    constants = family.constants(config)
    bare = family.prefix if config.head == "none" else ""
    theirs = {name.removeprefix(bare): name for name in (*by_name, *constants)}

    def tensor(name: str) -> np.ndarray:
        if theirs[name] in constants:
            return constants[theirs[name]]
        slot = by_name[theirs[name]]
        parts = [np.asarray(leaves[path] if slot.index is None else leaves[path][slot.index]) for path in slot.paths]
        return slot.how.save(parts)

    def size(name: str) -> int:
        if theirs[name] in constants:
            return constants[theirs[name]].nbytes
        slot = by_name[theirs[name]]
        return int(np.prod(slot.shape)) * leaves[slot.paths[0]].dtype.itemsize

    write_folder(folder, [(name, size(name)) for name in theirs], tensor, max_shard_bytes)
    return str(leaves["embed/tokens/embedding"].dtype)


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
