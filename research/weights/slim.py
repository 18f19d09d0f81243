"""Structured pruning: whole heads, feed-forward columns and layers go, and a smaller dense model is left.

    worth = importance(loss_fn, config, params, batches)
    config, params = slim(config, params, heads=3, columns=512, layers=(4, 5), importance=worth)

The result is an ordinary model with an ordinary config: it needs no mask, is faster everywhere, and is written to a
Hugging Face folder like any other where that format can say its sizes.

L layers of a run · N heads · K key/value heads · H head size · F feed-forward columns
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core import tree
from research.core.types import Array, Params
from research.weights.targets import is_weight

Importance = dict[str, np.ndarray]
""" "decoder/attention", "decoder/cross", "decoder/mlp", "encoder/..." -> [L, K] groups of heads or [L, F] columns."""
Stacks = dict[str, tuple[Any, ...]]


def importance(
    loss_fn: Callable[[Params, Any, Any], tuple[Array, Any]], config: Any, params: Params, batches: Iterable[Any]
) -> Importance:
    """How much the loss moves when a unit's output is scaled down: |∂L/∂ξ| at ξ = 1, summed over batches.

    ξ multiplies what a head or column adds, so ∂L/∂ξ = Σ g w over the unit's rows of the output kernel. See *Are
    Sixteen Heads Really Better than One?*, https://arxiv.org/abs/1905.10650. Heads that share keys are one unit.

    loss_fn: as training takes it; it is called without a random key.

    Raises:
      ValueError: no batch, or a model with adapters or quantized weights.
    """
    params = _plain(params)
    along = lambda p, batch: jax.tree.map(jnp.multiply, p, jax.grad(lambda q: loss_fn(q, batch, None)[0])(p))  # noqa: E731
    gradient = jax.jit(along)
    total: Importance = {}
    for batch in batches:
        units = _units(config, gradient(params, batch), jnp.sum)
        total = {path: total.get(path, 0) + np.abs(np.asarray(x)) for path, x in units.items()}
    if not total:
        raise ValueError("importance needs at least one batch")
    return total


def sizes(config: Any, params: Params) -> Importance:
    """The norm of each unit's rows of the output kernel: what there is to go by without text."""
    squares = _units(config, jax.tree.map(jnp.square, _plain(params)), jnp.sum)
    return {name: np.sqrt(x) for name, x in squares.items()}


def block_influence(hidden: Sequence[Array], mask: Array) -> np.ndarray:
    """1 − mean cos(h_l, h_(l+1)) of every layer [L]: how far it turns the residual stream.

    See *ShortGPT: Layers in Large Language Models are More Redundant Than You Expect*, https://arxiv.org/abs/2403.03853.

    Args:
      hidden: [B, T, D] before the first layer and after each. mask: [B, T], 1 at real tokens.
    """
    turned = []
    for before, after in zip(hidden, hidden[1:], strict=False):
        before, after = (x.astype(jnp.float32) for x in (before, after))
        dot = jnp.sum(before * after, -1)
        cos = dot / jnp.maximum(jnp.linalg.norm(before, axis=-1) * jnp.linalg.norm(after, axis=-1), 1e-12)
        turned.append(1 - jnp.sum(jnp.where(mask > 0, cos, 0)) / jnp.sum(mask > 0))
    return np.asarray(turned)


def slim(
    config: Any,
    params: Params,
    *,
    heads: int | None = None,
    columns: int | None = None,
    layers: Sequence[int] = (),
    encoder_layers: Sequence[int] = (),
    importance: Importance | None = None,
) -> tuple[Any, Params]:
    """The config and weights of the model that is left.

    Args:
      heads: how many stay in every layer, a multiple of those that share keys; columns: of every feed-forward layer;
        None: all. Each layer keeps its own most important ones; with a learned relative bias (T5), which all layers
        share, every layer keeps the same.
      layers: which layers go, counted from 0 or from the end; of the decoder where there are two stacks.
        encoder_layers: of the encoder beside a decoder.
      importance: from `importance`; None: by `sizes`.

    Raises:
      ValueError: more heads, columns or layers than there are, none left, heads that do not share evenly, ALiBi (whose
        slopes belong to the numbers of the heads), or a model with adapters or quantized weights.
    """
    params = _plain(params)
    worth = dict(sizes(config, params) if importance is None else importance)
    if heads is not None and config.positions == "alibi":
        raise ValueError("ALiBi gives every head a slope by its number: without some of them the others would change")
    config, stacks = _fewer_layers(config, _stacks(params), layers, encoder_layers, worth)
    if heads is not None:
        config, stacks, params = _fewer_heads(config, stacks, params, heads, worth)
    if columns is not None:
        config, stacks = _fewer_columns(config, stacks, columns, worth)
    changed = {name: {**params[name], tree.LAYERS: each} for name, each in stacks.items()}
    return config, tree.stack({**params, **changed})


def _plain(params: Params) -> Params:
    params = tree.stack(params)
    if any(is_weight(node) for node in jax.tree.leaves(params, is_leaf=is_weight)):
        raise ValueError("structured pruning cuts plain arrays: merge adapters and masks, dequantize, then cut")
    return params


def _stacks(params: Params) -> Stacks:
    """The layers of each stack, one tree each."""
    parts = tree.unstack(params)
    return {name: parts[name][tree.LAYERS] for name in ("encoder", "decoder") if name in parts}


def _units(config: Any, params: Params, reduce: Callable[..., Array]) -> Importance:
    """`reduce` over the rows of the output kernels that belong to one unit."""
    found: Importance = {}
    for name, layers in _stacks(params).items():
        for part, kernel, units in _parts(config, layers[0]):
            each = [layer[part][kernel]["kernel"] for layer in layers]
            found[f"{name}/{part}"] = np.stack([np.asarray(reduce(w.reshape(units, -1), axis=1)) for w in each])
    return found


def _parts(config: Any, layer: Any) -> list[tuple[str, str, int]]:
    """(layer's part, its output kernel, how many units feed it)."""
    attentions = [(part, "o", config.n_kv_heads) for part in ("attention", "cross") if part in layer]
    return [*attentions, ("mlp", "down", config.d_ff)]


def _fewer_layers(
    config: Any, stacks: Stacks, layers: Sequence[int], encoder_layers: Sequence[int], worth: Importance
) -> tuple[Any, Stacks]:
    """Leaves layers out, of `worth` too."""
    main = "encoder" if config.kind == "encoder" else "decoder"
    if encoder_layers and config.kind != "encoder_decoder":
        raise ValueError(
            f"encoder_layers are those beside a decoder; this model is of kind {config.kind!r}: give layers"
        )
    out = dict(stacks)
    for name, gone in ((main, layers), ("encoder", encoder_layers)):
        if not gone:
            continue
        depth = len(stacks[name])
        wrong = [i for i in gone if not -depth <= i < depth]
        if wrong:
            raise ValueError(f"the {name} has {depth} layers; given {wrong}")
        kept = sorted(set(range(depth)) - {i % depth for i in gone})
        if not kept:
            raise ValueError(f"all {depth} layers of the {name} would go")
        out[name] = tuple(stacks[name][i] for i in kept)
        for part in [key for key in worth if key.startswith(f"{name}/")]:
            worth[part] = worth[part][kept]
        if name == main:
            slides = tuple(config.sliding[i] for i in kept) if config.sliding else ()
            both = {} if config.kind != "encoder_decoder" else {"n_encoder_layers": config.n_encoder_layers}
            config = config.replace(n_layers=len(kept), sliding=slides, **both)
        else:
            config = config.replace(n_encoder_layers=len(kept))
    return config, out


def _fewer_heads(
    config: Any, stacks: Stacks, params: Params, heads: int, worth: Importance
) -> tuple[Any, Stacks, Params]:
    """Keeps the most important groups of heads of every layer."""
    shared = config.n_heads // config.n_kv_heads
    if not 0 < heads <= config.n_heads or heads % shared:
        raise ValueError(
            f"heads is how many of {config.n_heads} stay, a multiple of the {shared} that share keys; given {heads}"
        )
    groups, out, params = heads // shared, {}, dict(params)
    for name, layers in stacks.items():
        together = config.positions == "relative"
        chosen = {
            part: _best(worth[f"{name}/{part}"], groups, together and part == "attention")
            for part in ("attention", "cross")
            if part in layers[0]
        }
        out[name] = tuple(
            {**layer, **{part: _cut_heads(layer[part], kept[i], config) for part, kept in chosen.items()}}
            for i, layer in enumerate(layers)
        )
        if together:
            table = params[name]["relative"]["embedding"]
            rows = table.reshape(len(table), config.n_kv_heads, shared)[:, chosen["attention"][0]].reshape(
                len(table), -1
            )
            params[name] = {**params[name], "relative": {"embedding": rows}}
    return (
        config.replace(n_heads=heads, n_kv_heads=groups, head_dim=config.head_dim),
        out,
        params,
    )


def _best(worth: np.ndarray, count: int, together: bool) -> np.ndarray:
    """The places of the `count` highest of every layer, in their order; the same for all layers if `together`."""
    if together:
        worth = np.broadcast_to(worth.sum(0), worth.shape)
    return np.sort(np.argsort(-worth, axis=1, kind="stable")[:, :count], axis=1)


def _cut_heads(attention: Mapping[str, Any], kept: np.ndarray, config: Any) -> dict[str, Any]:
    """One layer's attention with these groups of heads alone."""
    out, groups = dict(attention), config.n_kv_heads
    for name in ("q", "k", "v"):
        out[name] = {key: _take(w, kept, groups, -1) for key, w in attention[name].items()}
    # The bias of the output belongs to no head.
    out["o"] = {**attention["o"], "kernel": _take(attention["o"]["kernel"], kept, groups, 0)}
    return out


def _take(w: Array, kept: np.ndarray, units: int, axis: int) -> Array:
    """Of an axis of `units` equal parts those that are kept."""
    axis %= w.ndim
    split = w.reshape(*w.shape[:axis], units, -1, *w.shape[axis + 1 :])
    return jnp.take(split, kept, axis=axis).reshape(*w.shape[:axis], -1, *w.shape[axis + 1 :])


def _fewer_columns(config: Any, stacks: Stacks, columns: int, worth: Importance) -> tuple[Any, Stacks]:
    """Keeps the most important columns of every feed-forward layer."""
    if not 0 < columns <= config.d_ff:
        raise ValueError(f"columns is how many of {config.d_ff} stay; given {columns}")

    def cut(mlp: Mapping[str, Any], kept: np.ndarray) -> dict[str, Any]:
        up = {name: {k: w[..., kept] for k, w in mlp[name].items()} for name in ("up", "gate") if name in mlp}
        return {**up, "down": {**mlp["down"], "kernel": mlp["down"]["kernel"][kept]}}

    out = {}
    for name, layers in stacks.items():
        kept = _best(worth[f"{name}/mlp"], columns, False)
        out[name] = tuple({**layer, "mlp": cut(layer["mlp"], kept[i])} for i, layer in enumerate(layers))
    return config.replace(d_ff=columns), out
