"""config.json <-> ModelConfig: the family's keys read and written, anything it cannot say refused by name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from research.interop.families import FAMILIES
from research.interop.family import Family
from research.interop.hf_keys import NEUTRAL, OFF, Reader
from research.interop.hf_rope import plain
from research.models.config import ModelConfig

# Rates and initial scales change training, not what the weights compute, and some families cannot write them.
_TRAINING = ("embed_dropout", "attention_dropout", "residual_dropout", "init_std")
_LABEL_FIELDS = ("pooling", "head_dense", "head_bias", "n_labels")
_OUTPUT_FIELDS = ("tied", "lm_bias", "logit_cap", "logit_scale")
_DEFAULTS = {field.name: field.default for field in fields(ModelConfig)}


def family_of(model_type: Any) -> Family:
    """The table of a `model_type`.

    Raises:
      ValueError: a type that has no table; the message lists those that have.
    """
    if model_type not in FAMILIES:
        raise ValueError(f"model_type {model_type!r} is not supported; have {sorted(FAMILIES)}")
    return FAMILIES[model_type]


def _implied(family: Family, architectures: Sequence[str], head: str | None, kind: str | None) -> dict[str, Any]:
    """The fields that the head implies: of the class in config.json, or of the head asked for."""
    # A sequence head's choices stand ready under every other head, so that changing `head` later is enough.
    ready = next((f for f in family.classes.values() if f["head"] == "sequence"), {})
    ready = {name: ready[name] for name in _LABEL_FIELDS if name in ready}
    chosen = _class_fields(family, architectures, head, kind)
    return {**ready, **({"head_dense": False, "head_bias": True} if chosen["head"] == "token" else {}), **chosen}


def _class_fields(family: Family, architectures: Sequence[str], head: str | None, kind: str | None) -> dict[str, Any]:
    if head is None:
        for name in architectures:
            if name in family.classes:
                return dict(family.classes[name])
        if architectures:
            raise ValueError(
                f"config.json: architectures {list(architectures)} are not supported for {family.model_type!r}; "
                f"have {sorted(family.classes)}; a head may be chosen with head=..., or head='none' for the body alone"
            )
        return dict(next(iter(family.classes.values())))
    wanted = "sequence" if head == "scalar" else head
    fitting = [f for f in family.classes.values() if f["head"] == wanted and f.get("kind", kind) == kind]
    fitting = fitting or [f for f in family.classes.values() if f["head"] == wanted]
    if not fitting:
        heads = sorted({f["head"] for f in family.classes.values()})
        raise ValueError(f"{family.model_type!r} has no head {head!r} in transformers; have {heads}")
    return {**fitting[0], "head": head}


def _labels(reader: Reader, default: int) -> int:
    names = reader.values.get("id2label")
    return len(names) if names else int(reader.values.get("num_labels") or default)


def config_from_hf(hf: Mapping[str, Any], *, head: str | None = None, ignore: Sequence[str] = ()) -> ModelConfig:
    """The ModelConfig that a config.json describes.

    Args:
      hf: the object in config.json, of transformers 4 or 5.
      head: the head to build instead of the one under `architectures`.
      ignore: keys that are known to change no computation.

    Raises:
      ValueError: a model type, architecture, activation or setting that is not computed here; the message names it.
    """
    family = family_of(hf.get("model_type"))
    reader = Reader(hf)
    values = dict(family.fixed)
    for key in family.keys:
        values[key.ours] = key.read(reader.get(key.theirs, key.default, also=key.also))
    values |= family.read(reader)
    kind = "encoder" if hf.get("is_encoder_decoder") is False else values.get("kind", "encoder_decoder")
    values |= _implied(family, hf.get("architectures") or (), head, kind)
    values["n_labels"] = _labels(reader, 3 if family.model_type == "bart" else 2)
    if values.get("kind", "decoder") != "encoder_decoder":
        depth = values.pop("n_encoder_layers", values["n_layers"])
        values["n_layers"] = depth if values.get("kind") == "encoder" else values["n_layers"]
    for name, allowed in {**OFF, **family.only}.items():
        reader.only(name, *allowed)
    reader.finish(ignore)
    return ModelConfig(family=family.model_type, **values)


def canonical(config: ModelConfig) -> ModelConfig:
    """The same computation with every field that does not take part in it at its default."""
    changes: dict[str, Any] = {name: _DEFAULTS[name] for name in _TRAINING}
    if config.head not in ("lm", "mlm"):
        changes |= {name: _DEFAULTS[name] for name in _OUTPUT_FIELDS}
    if config.head not in ("sequence", "token", "scalar"):
        changes |= {name: _DEFAULTS[name] for name in _LABEL_FIELDS}
    if config.head == "token":
        changes["pooling"] = _DEFAULTS["pooling"]
    if config.head == "scalar":
        changes |= {"head": "sequence", "n_labels": 1}
    slides = tuple(config.slides(layer) for layer in range(config.n_layers))
    changes |= {"window": config.window if any(slides) else 0, "sliding": slides if any(slides) else ()}
    changes["attention_scale"] = config.scale
    if config.positions == "rope":
        local = None if config.rope_local is None or not any(slides) else plain(config.rope_local, config.head_dim)
        changes |= {"rope": plain(config.rope, config.head_dim)}
        changes["rope_local"] = None if local == changes["rope"] else local
        if config.rope.scaling == "dynamic":
            changes["max_length"] = config.rope.original_length
    else:
        changes |= {"rope": _DEFAULTS["rope"], "rope_local": None}
    if config.positions != "relative":
        changes |= {name: _DEFAULTS[name] for name in ("relative_buckets", "relative_distance")}
    if config.positions != "learned":
        changes["position_offset"] = 0
    if config.kind != "encoder_decoder":
        changes |= {"n_encoder_layers": 0, "decoder_start_id": -1}
    if config.norm == "rmsnorm":
        changes["norm_bias"] = _DEFAULTS["norm_bias"]
    return config.replace(**changes)


def _differs(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and isinstance(theirs, float):
        return not math.isclose(ours, theirs, rel_tol=1e-12)
    return ours != theirs


def _class_of(family: Family, config: ModelConfig) -> str:
    wanted = "sequence" if config.head == "scalar" else config.head
    for name, implied in family.classes.items():
        if implied["head"] == wanted and implied.get("kind", config.kind) == config.kind:
            return name
    heads = sorted({f"{f['head']} ({f['kind']})" if "kind" in f else f["head"] for f in family.classes.values()})
    raise ValueError(
        f"transformers has no {family.model_type!r} with head {config.head!r} on a {config.kind}; have {heads}"
    )


def config_to_hf(config: ModelConfig, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The config.json of a model, as transformers 4 and 5 read it.

    Args:
      base: a config.json whose neutral keys (label names, generation settings, notes) are kept.

    Raises:
      ValueError: a choice that the family cannot express; the message names the fields.
    """
    family = family_of(config.family)
    values: dict[str, Any] = {name: value for name, value in (base or {}).items() if name in NEUTRAL}
    values |= {"model_type": family.model_type, "architectures": [_class_of(family, config)]}
    values |= {key.theirs: key.write(getattr(config, key.ours)) for key in family.keys}
    values |= family.write(config)
    if config.head in ("sequence", "token", "scalar"):
        labels = 1 if config.head == "scalar" else config.n_labels
        if len(values.get("id2label") or ()) != labels:
            values["id2label"] = {str(i): f"LABEL_{i}" for i in range(labels)}
            values["label2id"] = {f"LABEL_{i}": i for i in range(labels)}
    _check_round_trip(config, values)
    return values


def _check_round_trip(config: ModelConfig, values: Mapping[str, Any]) -> None:
    ours, theirs = canonical(config), canonical(config_from_hf(values))
    wrong = [
        field.name for field in fields(ModelConfig) if _differs(getattr(ours, field.name), getattr(theirs, field.name))
    ]
    # A nonzero output bias of BART is told by the file, not by config.json.
    wrong = [name for name in wrong if not (name == "lm_bias" and config.family == "bart")]
    if wrong:
        said = ", ".join(f"{name} = {getattr(ours, name)!r} (it has {getattr(theirs, name)!r})" for name in wrong)
        raise ValueError(f"the transformers family {config.family!r} cannot express {said}")
