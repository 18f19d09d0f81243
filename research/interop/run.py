"""Checkpoints of our own training runs, as models: the configuration and the weights, without the optimizer."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from research import weights
from research.core import tree
from research.core.types import Array, Params
from research.models import ModelConfig, build, preset
from research.models.config import check_names
from research.ops.positions import Rope
from research.training.checkpoint import Checkpoints, load_params
from research.training.state import State
from research.weights.targets import is_weight


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """Every field, in types that JSON holds."""
    return asdict(config) | {"sliding": list(config.sliding)}


def config_from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """The inverse of `config_to_dict`; a `preset` may stand for the fields that are not named.

    Raises:
      ValueError: an unknown field or preset, or values that make no model.
    """
    fields = {name: value for name, value in values.items() if name != "preset"}
    check_names(fields)
    for name in ("rope", "rope_local"):
        if isinstance(fields.get(name), Mapping):
            fields[name] = Rope(**fields[name])
    if "sliding" in fields:
        fields["sliding"] = tuple(fields["sliding"])
    if values.get("preset"):
        return preset(values["preset"], **fields)
    try:
        return ModelConfig(**fields)
    except TypeError as error:
        raise ValueError(f"the stored model config is incomplete: {error}; it has {sorted(fields)}") from None


def is_run(folder: Path) -> bool:
    """Whether a folder holds checkpoints of a training run."""
    return any((step / "meta.json").is_file() for step in folder.glob("[0-9]*"))


def load_run(folder: str | os.PathLike[str], step: int | None = None) -> tuple[ModelConfig, Params, dict[str, Any]]:
    """(config, params, meta) of a run's newest sound checkpoint, or of one step; with its adapters, if it has any.

    Of a run that learned beside a frozen reference it is the policy, beside a teacher the student.

    Raises:
      ValueError: no sound checkpoint, no model config in it, or weights of another model.
    """
    params, meta = load_params(folder, step)
    stored = meta.get("config", {}).get("model")
    if not isinstance(stored, Mapping):
        raise ValueError(
            f"the checkpoint in {folder} says nothing about its model; its config has {sorted(meta['config'])}"
        )
    config = config_from_dict(stored)
    for learned, frozen in (("policy", "reference"), ("student", "teacher")):
        params = params[learned] if params.keys() == {learned, frozen} else params
    recipe = meta["config"].get("peft") or ()
    try:
        return config, weights.restored(params, build(config).abstract(), recipe, config=config), meta
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def with_head(config: ModelConfig, params: Params, head: str, key: Array) -> tuple[ModelConfig, Params]:
    """The same body under another head, which is drawn from `key`."""
    changed = config.replace(head=head)
    fresh = jax.jit(lambda k: build(changed).init(k).get("head", {}))(key)
    body = {name: part for name, part in params.items() if name != "head"}
    return changed, body | ({"head": fresh} if fresh else {})


def save_run(folder: str | os.PathLike[str], config: ModelConfig, params: Params, recipe: weights.Recipe = ()) -> Path:
    """Writes weights as step 0 of a run, from where training can begin.

    recipe: what quantized weights, or those with adapters, were made by; it is stored with them, so that `load_run`
      gives back the same leaves.

    Raises:
      ValueError: the recipe does not make weights of this form.
    """
    params = tree.stack(params)
    made = weights.structure(build(config).abstract(), recipe, config=config)
    forms: list[Any] = [jax.tree.structure(made), jax.tree.structure(params)]
    if forms[0] != forms[1]:
        given, asked = (_kinds(of) or "plain arrays" for of in (params, made))
        methods = [rule["method"] for rule in weights.describe(recipe)]
        raise ValueError(
            f"the weights hold {given} and the recipe {methods} makes {asked} "
            "of this model: give the recipe that they were made with, with all its options"
        )
    state = State(jnp.zeros((), jnp.int32), params, (), jax.random.key(0))
    described = {"model": config_to_dict(config), "peft": weights.describe(recipe)}
    with Checkpoints(folder, config=described) as checkpoints:
        checkpoints.save(state)
    return Path(folder)


def _kinds(params: Params) -> list[str]:
    """The types of the weights that are no plain arrays."""
    nodes = jax.tree.leaves(params, is_leaf=is_weight)
    return sorted({type(node).__name__ for node in nodes if is_weight(node)})
