"""Tensors of a folder of safetensors files, read and written one at a time; nothing is ever unpickled."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or one sentence about what is wrong with it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        here = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        raise FileNotFoundError(f"{path.parent} has no {path.name}; it has {here}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}; expected an object")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes an object as transformers does: sorted, indented, with a last newline."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Tensors:
    """The tensors of a folder by name; `read` maps one into memory, nothing else is loaded."""

    folder: Path
    files: dict[str, Any]

    @property
    def names(self) -> list[str]:
        return sorted(self.files)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.files[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> np.dtype:
        code = self.files[name].get_slice(name).get_dtype()
        if code not in _TYPES:
            raise ValueError(f"{self.folder}: {name} is stored as {code}; expected one of {sorted(_TYPES)}")
        return np.dtype(_TYPES[code])

    def read(self, name: str) -> np.ndarray:
        return self.files[name].get_tensor(name)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except FileNotFoundError:
        here = sorted(p.name for p in path.parent.glob("*.safetensors"))
        raise FileNotFoundError(f"{path.parent} has no {path.name}; it has {here}") from None
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from None


def open_folder(folder: Path) -> Tensors:
    """The tensors of `model.safetensors`, or of the shards named by its index.

    Raises:
      FileNotFoundError: no safetensors here, or a shard is missing.
      ValueError: a truncated file, or an index that disagrees with its shards.
    """
    if (folder / SINGLE).is_file():
        handle = _open(folder / SINGLE)
        return Tensors(folder, dict.fromkeys(handle.keys(), handle))
    if not (folder / INDEX).is_file():
        _refuse(folder)
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{folder / INDEX} has no 'weight_map' of tensor name to file name")
    if escaping := sorted(f for f in set(weight_map.values()) if Path(f).name != f):
        raise ValueError(f"{folder / INDEX} names files outside its folder: {escaping}")
    handles = {name: _open(folder / name) for name in sorted(set(weight_map.values()))}
    found = {name: file for file, handle in handles.items() for name in handle.keys()}  # noqa: SIM118
    if wrong := sorted(name for name in {*weight_map, *found} if weight_map.get(name) != found.get(name)):
        raise ValueError(f"{folder / INDEX} and its shards disagree about {wrong}")
    return Tensors(folder, {name: handles[file] for name, file in found.items()})


def _refuse(folder: Path) -> None:
    pickles = sorted({p.name for pattern in _PICKLES for p in folder.glob(pattern)})
    if pickles:
        raise FileNotFoundError(
            f"{folder} has only pickled weights {pickles}, which can run code when loaded and are never read here; "
            f"where torch is installed, AutoModel.from_pretrained(folder).save_pretrained(new_folder) of transformers "
            f"(with the AutoModelFor... class of its head) writes {SINGLE} once"
        )
    here = sorted(p.name for p in folder.glob("*"))
    raise FileNotFoundError(f"{folder} has neither {SINGLE} nor {INDEX}; it has {here}")


def plan_shards(sizes: Sequence[tuple[str, int]], limit: int) -> list[list[str]]:
    """Names cut into shards of at most `limit` bytes, in order; a larger tensor has a shard of its own."""
    if limit <= 0:
        raise ValueError(f"a shard must hold at least one byte, given max_shard_bytes={limit}")
    shards: list[list[str]] = []
    room = 0
    for name, size in sizes:
        if not shards or size > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= size
    return shards


def write_folder(
    folder: Path, sizes: Sequence[tuple[str, int]], tensor: Callable[[str], np.ndarray], limit: int
) -> None:
    """Writes the named tensors as one file or as shards with an index; only one shard is held in memory."""
    shards = plan_shards(sizes, limit)
    last = len(shards)
    files = [SINGLE] if last == 1 else [f"model-{i + 1:05d}-of-{last:05d}.safetensors" for i in range(last)]
    for file, names in zip(files, shards, strict=True):
        # The writer takes a tensor's memory as it lies: a transposed view would be stored scrambled.
        arrays = {name: np.ascontiguousarray(tensor(name)) for name in names}
        save_file(arrays, folder / f".{file}", metadata={"format": "pt"})
        (folder / f".{file}").chmod(0o644)  # the writer makes it readable to its owner alone
        (folder / f".{file}").replace(folder / file)
    for stale in folder.glob("model*.safetensors"):
        if stale.name not in files:
            stale.unlink()
    if last == 1:
        (folder / INDEX).unlink(missing_ok=True)
        return
    weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
    total = sum(size for _, size in sizes)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
