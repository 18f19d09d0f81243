"""Rotary settings and sliding-window layers of config.json, in the spelling of transformers 4 and 5."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from research.interop.hf_keys import Reader
from research.models.config import ModelConfig
from research.ops.positions import Rope

FULL, SLIDING = "full_attention", "sliding_attention"
_KINDS = {"default": "none", "linear": "linear", "dynamic": "dynamic", "yarn": "yarn", "llama3": "llama3"}
_USED = {
    "none": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}


def _attention_factor(given: Mapping[str, Any], factor: float) -> float | None:
    if given.get("attention_factor") is not None:
        return float(given["attention_factor"])
    one, all_dims = given.get("mscale"), given.get("mscale_all_dim")
    if not (one and all_dims):
        return None

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    return scale(one) / scale(all_dims)


def rope_from(given: Mapping[str, Any], theta: float, max_length: int) -> Rope:
    """A Rope from `rope_scaling` or `rope_parameters`; a key that the scaling does not use is an error."""
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in _KINDS:
        raise ValueError(f"config.json: rope_type {kind!r} is not supported; have {sorted(_KINDS)}")
    scaling = _KINDS[kind]
    if given.get("partial_rotary_factor") not in (None, 1.0):
        raise ValueError(f"config.json: partial_rotary_factor = {given['partial_rotary_factor']} is not supported")
    general = {"rope_type", "type", "rope_theta", "original_max_position_embeddings", "partial_rotary_factor"}
    if unknown := sorted(set(given) - general - set(_USED[scaling])):
        raise ValueError(f"config.json: rope settings {unknown} are unknown for rope_type {kind!r}")
    theta = float(given.get("rope_theta") or theta)
    if scaling == "none":
        return Rope(theta=theta)
    missing = [name for name in _USED[scaling] if name.endswith("factor") and name != "attention_factor"]
    if missing := [name for name in missing if given.get(name) is None]:
        raise ValueError(f"config.json: rope_type {kind!r} needs {missing}; given {dict(given)}")
    factor = float(given["factor"])
    if scaling == "linear":
        return Rope(theta=theta, scaling=scaling, factor=factor)
    # transformers stretches "dynamic" from max_position_embeddings, whatever else the dict says.
    original = None if scaling == "dynamic" else given.get("original_max_position_embeddings")
    rope = Rope(theta=theta, scaling=scaling, factor=factor, original_length=int(original or max_length))
    if scaling == "llama3":
        low, high = float(given["low_freq_factor"]), float(given["high_freq_factor"])
        return replace(rope, low_freq_factor=low, high_freq_factor=high)
    if scaling == "yarn":
        return replace(
            rope,
            beta_fast=float(given.get("beta_fast") or 32),
            beta_slow=float(given.get("beta_slow") or 1),
            attention_factor=_attention_factor(given, factor),
            truncate=bool(given.get("truncate", True)),
        )
    return rope


def rope_to(rope: Rope, head_dim: int) -> dict[str, Any]:
    """`rope_parameters` of transformers 5; a fixed NTK stretch is the plain RoPE of a larger theta."""
    rope = plain(rope, head_dim)
    kind = {ours: theirs for theirs, ours in _KINDS.items()}[rope.scaling]
    values: dict[str, Any] = {"rope_type": kind, "rope_theta": rope.theta}
    for name in _USED[rope.scaling]:
        if name not in ("mscale", "mscale_all_dim") and getattr(rope, name) is not None:
            values[name] = getattr(rope, name)
    if rope.scaling in ("yarn", "llama3"):
        values["original_max_position_embeddings"] = rope.original_length
    return values


def plain(rope: Rope, head_dim: int) -> Rope:
    """The same rotation without the "ntk" scaling, and without settings that its scaling does not read."""
    theta = rope.theta * rope.factor ** (head_dim / (head_dim - 2)) if rope.scaling == "ntk" else rope.theta
    scaling = "none" if rope.scaling == "ntk" else rope.scaling
    kept = {name: getattr(rope, name) for name in _USED[scaling] if hasattr(rope, name)}
    if scaling in ("dynamic", "yarn", "llama3"):
        kept["original_length"] = rope.original_length
    return Rope(theta=theta, scaling=scaling, **kept)


def read_rope(reader: Reader, theta: float) -> dict[str, Any]:
    """The field `rope` from a config with one RoPE for all layers."""
    max_length = int(reader.get("max_position_embeddings"))
    new, old = reader.get("rope_parameters", None), reader.get("rope_scaling", None)
    given = new or old or {}
    reader.only("partial_rotary_factor", None, 1.0)
    reader.get("original_max_position_embeddings", None)
    rope = rope_from(given, float(reader.get("rope_theta", theta)), max_length)
    stretched = int(rope.factor * max_length) if rope.scaling == "dynamic" else max_length
    return {"rope": rope, "max_length": stretched}


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """`rope_parameters`, also as transformers 4 reads them, and `max_position_embeddings`."""
    values = rope_to(config.rope, config.head_dim)
    longest = config.rope.original_length if config.rope.scaling == "dynamic" else config.max_length
    scaled = {key: value for key, value in values.items() if key != "rope_theta"}
    return {
        "max_position_embeddings": longest,
        "rope_parameters": values,
        "rope_theta": values["rope_theta"],
        "rope_scaling": None if values["rope_type"] == "default" else scaled,
    }


def layer_types(config: ModelConfig) -> list[str]:
    """The kind of attention of every layer, in their words."""
    return [SLIDING if config.slides(layer) else FULL for layer in range(config.n_layers)]


def sliding_from(types: Sequence[str] | None, window: int | None, slides: Sequence[bool]) -> dict[str, Any]:
    """The fields `window` and `sliding` from `layer_types`, or where absent from the family's rule `slides`."""
    if types is not None:
        if unknown := sorted(set(types) - {FULL, SLIDING}):
            raise ValueError(f"config.json: layer_types {unknown} are not supported; have {[FULL, SLIDING]}")
        slides = [kind == SLIDING for kind in types]
    if not window or not any(slides):
        return {"window": 0, "sliding": ()}
    return {"window": int(window), "sliding": () if all(slides) else tuple(slides)}
