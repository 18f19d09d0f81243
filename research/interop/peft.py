"""Adapter files of the `peft` library, both ways: LoRA, DoRA, (IA)³, prompt and prefix tuning.

<folder>/adapter_config.json, adapter_model.safetensors. Their modules are found through the family's table of names, so
every family that loads has its adapters too. GPT-2 and BLOOM keep query, key and value in one matrix: three adapters
of rank R become one of rank 3R there, which computes the same; one of theirs becomes three that share A.

I input features · O output features · R rank · P virtual tokens · L layers
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from research.core import tree
from research.core.types import Params
from research.interop.folder import read_json, write_json
from research.interop.hf_config import family_of
from research.interop.table import Slot, slots
from research.models import ModelConfig, build
from research.weights import targets
from research.weights.adapters import Scaled
from research.weights.lora import DoRA, LoRA
from research.weights.prompts import TABLE, SoftPrompt, rows
from research.weights.recipe import strip
from research.weights.wrapper import Wrapper, is_wrapper

CONFIG, TENSORS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
_BASE = "base_fingerprint"
_TASKS = {"lm": "CAUSAL_LM", "sequence": "SEQ_CLS", "token": "TOKEN_CLS"}
_NAMES = {"LORA": ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector"), "IA3": ("ia3_l",)}


def _modules(config: ModelConfig) -> dict[str, Slot]:
    """Their linear modules by name, with the kernels of ours that each holds."""
    found = slots(family_of(config.family).rows(config), build(config).abstract())
    return {s.name.removesuffix(".weight"): s for s in found if s.paths[0].endswith("/kernel")}


def _columns(slot: Slot, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Rows [R, O] of our kernels as rows [R, O'] in the order of their output features."""
    joined = slot.how.save(list(parts))
    return joined if joined.shape[0] == parts[0].shape[0] and _in_first(slot) else joined.T


def _in_first(slot: Slot) -> bool:
    return slot.how.shape([(3, 5)] * len(slot.paths))[0] == 3


def _apart(slot: Slot, wide: np.ndarray) -> tuple[np.ndarray, ...]:
    """The inverse of `_columns`."""
    return slot.how.load(wide if _in_first(slot) else wide.T)


# ---- writing ----


def save_adapter(
    folder: str | os.PathLike[str], config: ModelConfig, params: Params, *, base: str = "", name: str | None = None
) -> Path:
    """Writes the adapter of a tree as `peft` reads it; returns the folder.

    Args:
      base: the folder or hub id of the base model, for their config. name: which of several nested adapters.

    Raises:
      ValueError: no adapter, several kinds of them, or one that their format does not know.
    """
    wrapped = {
        tree.path_of(k): n for k, n in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_wrapper) if is_wrapper(n)
    }
    nodes = {path: _named(node, name) for path, node in wrapped.items()}
    kept = {path: node for path, node in nodes.items() if node is not None}
    kinds = {type(node) for node in kept.values()}
    prefix = {p: leaf for p, leaf in tree.paths(params).items() if "/prefix/" in p}
    if len(kinds) + bool(prefix) != 1:
        raise ValueError(
            f"their file holds one kind of adapter; the weights have {sorted(k.__name__ for k in kinds)}"
            f"{' and a prefix' if prefix else ''}" + (f" called {name!r}" if name else "")
        )
    kind = kinds.pop() if kinds else None
    if kind is SoftPrompt:
        values, tensors = _prompt_file(kept[TABLE])
    elif kind is None:
        values, tensors = _prefix_file(config, prefix)
    elif kind in (LoRA, DoRA):
        values, tensors = _lora_file(config, kept, kind is DoRA)
    elif kind is Scaled:
        values, tensors = _ia3_file(config, kept)
    else:
        raise ValueError(f"their format has no adapter of type {kind.__name__}")
    task = "SEQ_2_SEQ_LM" if config.kind == "encoder_decoder" else _TASKS.get(config.head)
    common = {"base_model_name_or_path": base, "task_type": task, "inference_mode": True}
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / CONFIG, common | values)
    arrays = {k: np.ascontiguousarray(np.asarray(v, np.float32)) for k, v in tensors.items()}
    save_file(arrays, target / TENSORS, metadata={"format": "pt", _BASE: tree.fingerprint(strip(params))})
    return target


def _named(node: Any, name: str | None) -> Any:
    while is_wrapper(node):
        if name in (None, node.name):
            return node
        node = node.base
    return None


def _of_layer(node: Wrapper, field: str, index: int | None) -> np.ndarray:
    array = np.asarray(getattr(node, field), np.float32)
    return array if index is None else array[index]


def _lora_file(config: ModelConfig, nodes: Mapping[str, Any], dora: bool) -> tuple[dict, dict]:
    tensors, ranks, alphas, conv = {}, {}, {}, False
    for module, slot in _touched(config, nodes).items():
        parts = [nodes.get(path) for path in slot.paths]
        if dora and len(parts) > 1:
            raise ValueError(f"{module} holds several of our matrices: their norms cannot be written as one DoRA")
        have = [p for p in parts if p is not None]
        scales = {float(_of_layer(p, "scale", slot.index)) for p in have}
        scale = scales.pop() if len(scales) == 1 else 1.0
        total, at = sum(p.a.shape[-1] for p in have), 0
        wide = [np.zeros((total, _width(config, path)), np.float32) for path in slot.paths]
        for i, part in enumerate(parts):
            if part is None:
                continue
            b = _of_layer(part, "b", slot.index) * (float(_of_layer(part, "scale", slot.index)) if scales else 1.0)
            wide[i][at : at + len(b)] = b
            at += len(b)
        a = np.concatenate([_of_layer(p, "a", slot.index) for p in have], axis=1)
        tensors[f"{PREFIX}{module}.lora_A.weight"] = a.T
        tensors[f"{PREFIX}{module}.lora_B.weight"] = _columns(slot, wide).T
        if dora:
            tensors[f"{PREFIX}{module}.lora_magnitude_vector"] = _of_layer(have[0], "magnitude", slot.index)
        ranks[module], alphas[module], conv = total, scale * total, conv or _in_first(slot)
    r, alpha = max(set(ranks.values())), max(set(alphas.values()))
    values = {
        "peft_type": "LORA",
        "r": r,
        "lora_alpha": alpha,
        "lora_dropout": next(iter(nodes.values())).dropout,
        "use_dora": dora,
        "use_rslora": False,
        "bias": "none",
        "fan_in_fan_out": conv,
        "target_modules": sorted(ranks),
        "rank_pattern": {module: n for module, n in ranks.items() if n != r},
        "alpha_pattern": {module: n for module, n in alphas.items() if n != alpha},
    }
    return values, tensors


def _ia3_file(config: ModelConfig, nodes: Mapping[str, Any]) -> tuple[dict, dict]:
    tensors, feedforward, conv = {}, [], False
    found = _touched(config, nodes)
    for module, slot in found.items():
        parts = [nodes.get(path) for path in slot.paths]
        if any(p is not None and p.side == "input" for p in parts):
            gain = _of_layer(parts[0], "gain", slot.index)[None]  # type: ignore[arg-type]
            feedforward.append(module)
        else:
            pieces = [
                np.ones((1, _width(config, path)), np.float32) if p is None else _of_layer(p, "gain", slot.index)[None]
                for p, path in zip(parts, slot.paths, strict=True)
            ]
            gain = _columns(slot, pieces).T
        tensors[f"{PREFIX}{module}.ia3_l"], conv = gain, conv or _in_first(slot)
    values = {"peft_type": "IA3", "target_modules": sorted(found), "feedforward_modules": feedforward}
    return values | {"fan_in_fan_out": conv}, tensors


def _touched(config: ModelConfig, nodes: Mapping[str, Any]) -> dict[str, Slot]:
    """Their modules that hold one of the adapted weights; paths of cut runs are not those of the table."""
    modules = _modules(config)
    known = {path for slot in modules.values() for path in slot.paths}
    if strange := sorted(set(nodes) - known):
        raise ValueError(f"the adapted weights {strange} have no module of theirs (adapt all layers of a stack)")
    return {module: slot for module, slot in modules.items() if set(slot.paths) & set(nodes)}


def _width(config: ModelConfig, path: str) -> int:
    return int(tree.paths(build(config).abstract())[path].shape[-1])


def _prompt_file(node: SoftPrompt) -> tuple[dict, dict]:
    prompt = np.asarray(rows(node.prompt), np.float32)
    values = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": prompt.shape[0], "token_dim": prompt.shape[1]}
    return values, {"prompt_embeddings": prompt}


def _prefix_file(config: ModelConfig, prefix: Mapping[str, Any]) -> tuple[dict, dict]:
    if config.kind != "decoder":
        raise ValueError(f"their prefix files are for decoders here; the model is of kind {config.kind!r}")
    k, v = (next(np.asarray(x, np.float32) for p, x in prefix.items() if p.endswith(f"/{s}")) for s in "kv")
    L, P, K, H = k.shape
    both = np.stack([k, v], axis=1)  # [L, 2, P, K, H]
    values = {
        "peft_type": "PREFIX_TUNING",
        "num_virtual_tokens": P,
        "token_dim": K * H,
        "num_attention_heads": K,
        "num_layers": L,
        "num_transformer_submodules": 1,
        "prefix_projection": False,
    }
    return values, {"prompt_embeddings": both.transpose(2, 0, 1, 3, 4).reshape(P, L * 2 * K * H)}


# ---- reading ----


def load_adapter(
    folder: str | os.PathLike[str], config: ModelConfig, params: Params, *, name: str = "default"
) -> Params:
    """The base `params` (layers in one run) with the adapter of a `peft` folder attached.

    Raises:
      FileNotFoundError: no adapter in the folder. ValueError: a tensor without a module of this model, a module
        that the file names but has no tensors for, another shape, a kind of adapter that is not known, or a file of
        ours (theirs say nothing about it) that was made for other weights.
    """
    source = Path(folder)
    values = read_json(source / CONFIG)
    if not (source / TENSORS).is_file():
        raise FileNotFoundError(f"{source} has no {TENSORS}; it holds {sorted(p.name for p in source.iterdir())}")
    _check_base(source, params)
    tensors = load_file(source / TENSORS)
    kind = values.get("peft_type")
    if kind in ("PROMPT_TUNING", "P_TUNING"):
        return _with_prompt(params, tensors, name)
    if kind == "PREFIX_TUNING":
        return _with_prefix(config, params, tensors)
    if kind not in _NAMES:
        raise ValueError(f"{source}: adapters of type {kind!r} are not known; have {sorted(_NAMES)} and prompts")
    by_module = _by_module(tensors, kind, source)
    modules = _modules(config)
    if strange := sorted(set(by_module) - set(modules)):
        raise ValueError(f"{source} adapts modules that this model does not have: {strange}; it has {sorted(modules)}")
    _no_target_is_bare(values, by_module, source)
    make = _loras if kind == "LORA" else _gains
    nodes = make(values, by_module, modules, tree.paths(params), name, source)
    return targets.replaced(params, nodes)


def _by_module(tensors: Mapping[str, np.ndarray], kind: str, source: Path) -> dict[str, dict[str, np.ndarray]]:
    out: dict[str, dict[str, np.ndarray]] = {}
    for key, value in tensors.items():
        plain = key.removeprefix(PREFIX).replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
        part = next((n for n in _NAMES[kind] if plain.endswith(f".{n}")), None)
        if part is None or not key.startswith(PREFIX):
            raise ValueError(f"{source}: the tensor {key!r} is no part of a {kind} adapter that can be read")
        out.setdefault(plain.removesuffix(f".{part}"), {})[part] = value
    return out


def _no_target_is_bare(values: Mapping[str, Any], by_module: Mapping[str, Any], source: Path) -> None:
    wanted = values.get("target_modules") or []
    for target in [] if isinstance(wanted, str) else wanted:
        if not any(module == target or module.endswith(f".{target}") for module in by_module):
            raise ValueError(f"{source}: the target {target!r} has no tensors; there are some for {sorted(by_module)}")


def _check_base(source: Path, params: Params) -> None:
    """Refuses a file made for the same model with other weights; other shapes are found later, by name."""
    with safe_open(source / TENSORS, framework="np") as file:
        made_for = (file.metadata() or {}).get(_BASE, "")
    mine = tree.fingerprint(strip(params))
    (shapes, _, values), (own_shapes, _, own_values) = made_for.partition("-"), mine.partition("-")
    if shapes == own_shapes and values != own_values:
        raise ValueError(f"{source} is of another base: it was made for the weights {made_for}, given are {mine}")


def _check_shape(source: Path, module: str, given: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if given != expected:
        raise ValueError(f"{source}: {module} is of another base: given {given}, the model expects {expected}")


def _pattern(table: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    for key, value in (table or {}).items():
        if module == key or module.endswith(f".{key}"):
            return value
    return default


def _loras(values, by_module, modules, leaves, name, source) -> dict[str, Any]:
    found: dict[str, dict[int | None, tuple]] = {}
    for module, parts in by_module.items():
        slot = modules[module]
        a, b = parts["lora_A.weight"].T.astype(np.float32), parts["lora_B.weight"].T.astype(np.float32)
        r = a.shape[1]
        widths = [leaves[path].shape[-1] for path in slot.paths]
        _check_shape(source, module, (a.shape[0], b.shape[1]), (leaves[slot.paths[0]].shape[-2], sum(widths)))
        alpha = _pattern(values.get("alpha_pattern"), module, values.get("lora_alpha", r))
        scale = alpha / (r**0.5 if values.get("use_rslora") else r)
        magnitude = parts.get("lora_magnitude_vector")
        for path, piece in zip(slot.paths, _apart(slot, b), strict=True):
            found.setdefault(path, {})[slot.index] = (a, piece, scale, magnitude)
    dora = bool(values.get("use_dora"))
    return {path: _stacked_lora(leaves[path], layers, dora, values, name) for path, layers in found.items()}


def _stacked_lora(base: Any, layers: Mapping[int | None, tuple], dora: bool, values: Any, name: str) -> LoRA | DoRA:
    """One leaf from the layers that have an adapter; the others get one that does nothing."""
    r = max(a.shape[1] for a, *_ in layers.values())
    I, O = base.shape[-2:]

    def of(index: int | None) -> tuple[Any, ...]:
        weight = np.asarray(base if index is None else base[index], np.float32)
        norm = np.linalg.norm(weight, axis=0) if dora else np.zeros(0, np.float32)
        a, b, scale, magnitude = layers.get(index, (np.zeros((I, 0)), np.zeros((0, O)), 1.0, None))
        fill = r - a.shape[1]
        a, b = np.pad(a, ((0, 0), (0, fill))), np.pad(b, ((0, fill), (0, 0)))
        return a, b, np.float32(scale), norm if magnitude is None else magnitude.reshape(-1)

    each = [of(None)] if None in layers else [of(i) for i in range(base.shape[0])]
    a, b, scale, magnitude = (
        jnp.asarray(parts[0] if None in layers else np.stack(parts), jnp.float32) for parts in zip(*each, strict=True)
    )
    dropout = float(values.get("lora_dropout") or 0.0)
    return DoRA(base, a, b, scale, magnitude, dropout, name) if dora else LoRA(base, a, b, scale, dropout, name)


def _gains(values, by_module, modules, leaves, name, source) -> dict[str, Any]:
    del values
    found: dict[str, dict[int | None, tuple[np.ndarray, str]]] = {}
    for module, parts in by_module.items():
        slot, gain = modules[module], parts["ia3_l"].astype(np.float32)
        side = "output" if gain.shape[1] == 1 else "input"
        base = leaves[slot.paths[0]].shape
        expected = sum(leaves[p].shape[-1] for p in slot.paths) if side == "output" else base[-2]
        _check_shape(source, module, (gain.size,), (expected,))
        pieces = _apart(slot, gain.reshape(1, -1)) if side == "output" else (gain,)
        for path, piece in zip(slot.paths, pieces, strict=True):
            found.setdefault(path, {})[slot.index] = (piece.reshape(-1), side)
    out = {}
    for path, layers in found.items():
        size, side = next(iter(layers.values()))
        count = 1 if None in layers else leaves[path].shape[0]
        each = [layers.get(None if None in layers else i, (np.ones_like(size), side))[0] for i in range(count)]
        out[path] = Scaled(leaves[path], jnp.asarray(each[0] if None in layers else np.stack(each)), side, name)
    return out


def _with_prompt(params: Params, tensors: Mapping[str, np.ndarray], name: str) -> Params:
    base = targets.chosen(params, TABLE)[TABLE]
    prompt = tensors["prompt_embeddings"]
    _check_shape(Path(TENSORS), "prompt_embeddings", (prompt.shape[1],), (base.shape[1],))
    return targets.replaced(params, {TABLE: SoftPrompt(base, jnp.asarray(prompt, jnp.float32), name)})


def _with_prefix(config: ModelConfig, params: Params, tensors: Mapping[str, np.ndarray]) -> Params:
    flat = tensors["prompt_embeddings"].astype(np.float32)
    L, K, H = config.n_layers, config.n_kv_heads, config.head_dim
    _check_shape(Path(TENSORS), "prompt_embeddings", (flat.shape[1],), (L * 2 * K * H,))
    both = flat.reshape(-1, L, 2, K, H).transpose(1, 2, 0, 3, 4)
    runs = {}
    for run, layers in tree.ordered(params["decoder"][tree.LAYERS]):
        part = slice(int(run), int(run) + tree.run_length(layers))
        prefix = {"k": jnp.asarray(both[part, 0]), "v": jnp.asarray(both[part, 1])}
        runs[run] = {**layers, "attention": {**layers["attention"], "prefix": prefix}}
    return {**params, "decoder": {**params["decoder"], tree.LAYERS: runs}}
