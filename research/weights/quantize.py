"""Quantizing a whole model by a recipe, counting its bits, and going back to plain weights.

params = quantize(params, {"method": "int8"})
params = quantize(params, {"method": "gptq", "bits": 3}, run=run, batches=batches)
params = quantize(params, [{"method": "smoothquant"}, {"method": "int8_static"}],
                  run=run, batches=batches, config=config)
params = attach(params, [{"method": "nf4"}, {"method": "lora"}], key)   # QLoRA
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core import tree
from research.core.types import Array, Params
from research.ops.linear import dense
from research.weights import recipe as recipes
from research.weights import targets
from research.weights.calibrate import calibrate
from research.weights.packed import Packed, is_packed
from research.weights.quantizer import Quantizer
from research.weights.smooth import Smooth
from research.weights.wrapper import is_wrapper, rebuild


def quantize(
    params: Params,
    recipe: recipes.Recipe,
    *,
    run: Callable[[Params, Any], Array] | None = None,
    batches: Sequence[Any] = (),
    config: Any = None,
    key: Array | None = None,
) -> Params:
    """The tree after every rule of the recipe; calibrated rules see the inputs that the rules before them left.

    run, batches: what calibrated rules run on, see `calibrate`. config: the model's, for "awq" and "smoothquant".

    Raises:
      ValueError: what `attach` refuses, or a calibrated rule without `run` or without batches.
    """
    rules = recipes.describe(recipe)
    root = jax.random.key(0) if key is None else key
    for i, (rule, method) in enumerate(zip(rules, recipes.parse(rules), strict=True)):
        statistics = None
        if isinstance(method, Quantizer) and method.CALIBRATED:
            if run is None:
                raise ValueError(f"method {rule['method']!r} is calibrated on text: give `run` and `batches`")
            statistics = calibrate(run, params, batches, target=method.target)
        own = jax.random.fold_in(root, i)
        params = recipes.attach(params, rule, own, config=config, statistics=statistics)
    return params


def layer_by_layer(recipe: recipes.Recipe, depth: int) -> list[dict[str, Any]]:
    """The recipe with every rule that packs by calibration once for each of `depth` layers, from the first to the last.

    Each then sees the inputs that the layers before it give with their rounded weights, as GPTQ and AWQ do it; each
    calibrates anew. The weights are left in runs of one layer.
    """
    rules = []
    for rule, method in zip(recipes.describe(recipe), recipes.parse(recipe), strict=True):
        packs = isinstance(method, Quantizer) and method.CALIBRATED and not isinstance(method, Smooth)
        rules += [rule | {"layers": [i, i + 1]} for i in range(depth)] if packs else [rule]
    return rules


def packed_weights(params: Params) -> dict[str, Packed]:
    """The quantized weights of a tree by full path, those under adapters too."""
    found = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_packed)
    return {tree.path_of(keys): node for keys, node in found if is_packed(node)}


def bits_per_weight(params: Params) -> float:
    """Bits that the arrays of the quantized weights hold for each number that they stand for.

    Raises:
      ValueError: nothing is quantized.
    """
    nodes = packed_weights(params).values()
    if not nodes:
        raise ValueError("the tree holds no quantized weight")
    return 8 * sum(tree.nbytes(node) for node in nodes) / sum(int(np.prod(node.shape)) for node in nodes)


def dequantize(params: Params) -> Params:
    """The tree with every quantized weight as the array that it stands for; adapters stay around it."""
    return _with_base(params, lambda path, node: dense(node))


def _with_base(params: Params, plain: Callable[[str, Packed], Array]) -> Params:
    def visit(path: str, node: Any) -> Any:
        if is_wrapper(node):
            return rebuild(node, visit(path, node.base), lambda _, value: value)
        return plain(path, node) if is_packed(node) else node

    return jax.tree_util.tree_map_with_path(
        lambda keys, node: visit(tree.path_of(keys), node), params, is_leaf=targets.is_weight
    )


def drift(before: Array, after: Array) -> float:
    """‖after - before‖ / ‖before‖ over all numbers of two outputs."""
    first, second = (np.asarray(x, np.float64) for x in (before, after))
    return float(np.linalg.norm(second - first) / np.linalg.norm(first))


def merge_back(
    params: Params, run: Callable[[Params, Any], Array], batch: Any, *, base: Params | None = None, dtype: Any = None
) -> tuple[Params, float]:
    """(dense weights with the adapters merged in, drift of `run`'s output on the batch).

    The adapters learned beside rounded weights. Merged into those (base None) only the rounding to `dtype` moves the
    output; merged into the unrounded `base`, or rounded again, the model is another one, by as much as the drift says.

    Raises:
      ValueError: what `merge` refuses, or a base of another model.
    """
    plain = dequantize(params)
    if base is not None:
        starts = [first for path in tree.paths(params) if (first := targets.layer_of(path)) is not None]
        own = tree.paths(tree.cut(base, starts))

        def original(path: str, node: Packed) -> Array:
            if path not in own or tuple(own[path].shape) != node.shape:
                raise ValueError(f"the base has no weight {path!r} of shape {node.shape} to merge into")
            return own[path]

        plain = _with_base(params, original)
    merged = recipes.merge(plain)
    if dtype is not None:
        merged = jax.tree.map(lambda w: w.astype(dtype) if jnp.issubdtype(w.dtype, jnp.floating) else w, merged)
    return merged, drift(run(params, batch), run(merged, batch))
