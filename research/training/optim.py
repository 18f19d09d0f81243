"""Optimizers: one table of update rules from optax, with decay and learning-rate groups by path.

Layers are stored stacked, [L, ...]. A rule that looks at the shape of a weight (Adafactor, "decay only matrices")
would take the layer axis for a matrix axis, so such rules run under `vmap` over it: the update of a stack is the stack
of the updates. Muon is told its axes.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import DictKey
from optax import contrib

from research.core import tree
from research.core.names import meant
from research.training.schedules import Schedule, make_schedule


class Optimizer(NamedTuple):
    """An optax transformation that also knows its learning rate, so that the step can report it."""

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]
    learning_rate: Schedule


class Groups(NamedTuple):
    """What a rule needs to know besides its own numbers: which weights it may treat as matrices of a layer."""

    matrices: frozenset[str]


def make(config: Mapping[str, Any], params: Any, *, steps: int | None = None) -> Optimizer:
    """The optimizer a config describes, for the trainable weights `params` (arrays or shapes).

    clip by global norm -> rule (`name`) -> + weight_decay · weight -> · learning rate of the group

    Keys common to all: name, learning_rate, schedule, warmup, steps, end, decay_steps, clip (0 or None: off),
    weight_decay, decay_groups, rate_groups. The groups are ordered (pattern, factor) pairs on generic paths, the
    first match wins and the rest keep factor 1; without decay_groups only matrices decay (rank >= 2 within one
    layer). Every other key goes to the rule: see `RULES`.

    Raises:
      ValueError: an unknown rule or option, or a pattern that matches no weight (candidates are listed).
    """
    given = dict(config)
    name = given.pop("name", "adamw")
    if name not in RULES:
        raise ValueError(f"unknown optimizer {name!r}; have {sorted(RULES)}")
    common = {key: given.pop(key, default) for key, default in _COMMON.items()}
    schedule = make_schedule(
        common["schedule"],
        common["learning_rate"],
        warmup=common["warmup"],
        steps=common["steps"] if common["steps"] is not None else steps,
        end=common["end"],
        decay=common["decay_steps"],
    )
    ranks = _ranks(params)
    _check_options(name, given)
    rule = RULES[name](Groups(frozenset(p for p, (rank, inside) in ranks.items() if inside and rank == 2)), **given)
    decay = _factors(params, common["decay_groups"])
    if not common["decay_groups"]:
        decay = {path: float(rank >= 2) for path, (rank, _) in ranks.items()}
    decay = {path: factor * common["weight_decay"] for path, factor in decay.items()}
    parts = [optax.clip_by_global_norm(common["clip"])] if common["clip"] else []
    parts += [rule, _descend(schedule, decay, _factors(params, common["rate_groups"]))]
    chain = optax.chain(*parts)
    return Optimizer(chain.init, chain.update, schedule)


_COMMON: dict[str, Any] = {
    "learning_rate": 3e-4,
    "schedule": "cosine",
    "warmup": 0,
    "steps": None,
    "end": 0.1,
    "decay_steps": None,
    "clip": 1.0,
    "weight_decay": 0.0,
    "decay_groups": (),
    "rate_groups": (),
}


def _check_options(name: str, given: Mapping[str, Any]) -> None:
    known = [key for key in inspect.signature(RULES[name]).parameters if key != "groups"]
    for key in given:
        if key not in known:
            hint = meant(key, [*known, *_COMMON])
            raise ValueError(f"optimizer {name!r} has no option {key!r}{hint}; have {known} and {['name', *_COMMON]}")


def _is_stacked(keys: Sequence[Any]) -> bool:
    # A stack is `layers/<run>/...` with a string run name; unstacked layers are tuple entries.
    names = [key.key if isinstance(key, DictKey) else None for key in keys]
    return any(a == tree.LAYERS and isinstance(b, str) and b.isdigit() for a, b in zip(names, names[1:], strict=False))


def _ranks(params: Any) -> dict[str, tuple[int, bool]]:
    """path -> (rank within one layer, whether it lies inside a layer)."""
    return {
        tree.path_of(keys): (len(leaf.shape) - _is_stacked(keys), f"/{tree.LAYERS}/" in f"/{tree.path_of(keys)}")
        for keys, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _factors(params: Any, groups: Sequence[tuple[str, float]]) -> dict[str, float]:
    return tree.paths(tree.assign(params, [(pattern, float(value)) for pattern, value in groups], default=1.0))


class _Count(NamedTuple):
    done: jax.Array


def _descend(schedule: Schedule, decay: Mapping[str, float], rate: Mapping[str, float]) -> optax.GradientTransformation:
    """u -> -lr(s) · rate[path] · (u + decay[path] · w)."""

    def init(params: Any) -> _Count:
        del params
        return _Count(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: _Count, params: Any = None) -> tuple[Any, _Count]:
        lr = schedule(state.done)

        def one(path: str, u: jax.Array, w: jax.Array) -> jax.Array:
            step = u + decay[path] * w if decay[path] else u
            return (-lr * rate[path] * step).astype(w.dtype)

        return tree.map_with_path(one, updates, params), _Count(state.done + 1)

    return optax.GradientTransformation(init, update)


def _flatten(params: Any) -> tuple[list[tuple[Any, jax.Array]], Any]:
    return jax.tree_util.tree_flatten_with_path(params)


def per_layer(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """Runs a rule weight by weight, and under `vmap` over the layer axis where weights are stacked.

    Holds one state per weight, at the weight's own path, so that shardings follow the weights.
    """

    def mapped(fn: Callable[..., Any], keys: Sequence[Any]) -> Callable[..., Any]:
        return jax.vmap(fn) if _is_stacked(keys) else fn

    def init(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda keys, w: mapped(rule.init, keys)(w), params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        leaves, treedef = _flatten(updates)
        states, weights = treedef.flatten_up_to(state), treedef.flatten_up_to(params)
        pairs = [mapped(rule.update, keys)(u, s, w) for (keys, u), s, w in zip(leaves, states, weights, strict=True)]
        return treedef.unflatten([u for u, _ in pairs]), treedef.unflatten([s for _, s in pairs])

    return optax.GradientTransformation(init, update)


def _adamw(groups: Groups, b1: float = 0.9, b2: float = 0.95, eps: float = 1e-8) -> optax.GradientTransformation:
    """m̂ / (√v̂ + ε). See *Decoupled Weight Decay Regularization*, https://arxiv.org/abs/1711.05101."""
    del groups
    return optax.scale_by_adam(b1=b1, b2=b2, eps=eps)


def _lion(groups: Groups, b1: float = 0.9, b2: float = 0.99) -> optax.GradientTransformation:
    """sign(b1 m + (1-b1) g). See *Symbolic Discovery of Optimization Algorithms*, https://arxiv.org/abs/2302.06675."""
    del groups
    return optax.scale_by_lion(b1=b1, b2=b2)


def _sgd(groups: Groups, momentum: float = 0.0, nesterov: bool = False) -> optax.GradientTransformation:
    """g, or the momentum trace of g."""
    del groups
    return optax.trace(decay=momentum, nesterov=nesterov) if momentum else optax.identity()


def _adafactor(
    groups: Groups,
    decay_rate: float = 0.8,
    min_dim: int = 128,
    clip_rms: float = 1.0,
    scale_by_weight: bool = True,
    eps: float = 1e-30,
) -> optax.GradientTransformation:
    """Second moments kept as a row and a column per matrix; updates relative to the weight's own scale.

    See *Adafactor: Adaptive Learning Rates with Sublinear Memory Cost*, https://arxiv.org/abs/1804.04235.
    """
    del groups
    parts = [
        optax.scale_by_factored_rms(decay_rate=decay_rate, min_dim_size_to_factor=min_dim, epsilon=eps),
        optax.clip_by_block_rms(clip_rms),
    ]
    return per_layer(optax.chain(*parts, *([optax.scale_by_param_block_rms()] if scale_by_weight else [])))


def _muon(
    groups: Groups,
    momentum: float = 0.95,
    ns_steps: int = 5,
    rms: float = 0.2,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Orthogonalised momentum for the matrices inside layers, AdamW for embeddings, norms, biases and heads.

    The update is scaled by rms · √max(in, out), which gives it AdamW's typical size, so one learning rate serves
    both parts. See *Muon is Scalable for LLM Training*, https://arxiv.org/abs/2502.16982.
    """
    if not groups.matrices:
        raise ValueError("muon needs matrices inside layers ('.../layers/...'); no trainable weight is one")

    def last_two(updates: Any) -> Any:
        # Optax maps over the layer axis itself; under another map its products have two batch axes, at half the speed.
        return jax.tree.map(lambda _: contrib.MuonDimensionNumbers(-2, -1), updates)

    matrices = optax.chain(
        contrib.scale_by_muon(beta=momentum, ns_steps=ns_steps, weight_dimension_numbers=last_two),
        optax.stateless_with_tree_map(lambda u, _: u * rms * math.sqrt(max(u.shape[-2:]))),
    )
    rest = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)

    def labels(params: Any) -> Any:
        return tree.map_with_path(lambda path, _: "matrix" if path in groups.matrices else "rest", params)

    return optax.partition({"matrix": matrices, "rest": rest}, labels)


RULES: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adamw": _adamw,
    "adafactor": _adafactor,
    "lion": _lion,
    "muon": _muon,
    "sgd": _sgd,
}
