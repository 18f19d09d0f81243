"""From a line of config to an adapted model: attach, find what learns, merge, strip.

A recipe is one dict or a list of them, applied in order; later ones may wrap what earlier ones made:

    {"method": "lora", "rank": 8}
    [{"method": "ia3"}, {"method": "select", "target": "head/.*"}]
    [{"method": "int8", "target": "embed/.*"}, {"method": "nf4"}, {"method": "lora"}]     QLoRA

Of two rules that quantize, the first that matches a weight has it. Rules that are calibrated on text (gptq, awq,
smoothquant, int8_static, wanda, sparsegpt) go through `research.weights.quantize`.

What a method accepts are the fields of its class, see `METHODS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, TypeAlias

import jax

from research.core import tree
from research.core.names import meant
from research.core.types import Array, Params
from research.ops.linear import fold
from research.weights import prefix as prefixes
from research.weights.adapters import Houlsby, Ia3
from research.weights.awq import AwqWeights
from research.weights.calibrate import Statistics, blank
from research.weights.fake import Qat
from research.weights.gptq import GptqWeights
from research.weights.grouped import GroupedWeights
from research.weights.int8 import Int8Dynamic, Int8Static, Int8Weights
from research.weights.lora import Lora
from research.weights.nf4 import Fp4Weights, Nf4Weights
from research.weights.packed import is_packed
from research.weights.prefix import Prefix
from research.weights.prompts import Prompt
from research.weights.prune import Pruner, SparseGpt, Wanda
from research.weights.quantizer import Quantizer
from research.weights.selective import BitFit, LastLayers, Norms, Select
from research.weights.smooth import Smooth
from research.weights.targets import is_weight
from research.weights.wrapper import folded_bias, is_wrapper, names, over_wrappers, rebuild

Recipe: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]

METHODS: dict[str, tuple[type, dict[str, Any]]] = {
    "full": (Select, {}),
    "select": (Select, {}),
    "bitfit": (BitFit, {}),
    "norms": (Norms, {}),
    "last_layers": (LastLayers, {}),
    "lora": (Lora, {}),
    "rslora": (Lora, {"stabilized": True}),
    "dora": (Lora, {"decomposed": True}),
    "houlsby": (Houlsby, {}),
    "ia3": (Ia3, {}),
    "prompt": (Prompt, {}),
    "p_tuning": (Prompt, {"hidden": 128}),
    "prefix": (Prefix, {}),
    "int8": (Int8Weights, {}),
    "int8_dynamic": (Int8Dynamic, {}),
    "int8_static": (Int8Static, {}),
    "nf4": (Nf4Weights, {}),
    "fp4": (Fp4Weights, {}),
    "int4": (GroupedWeights, {"bits": 4}),
    "int3": (GroupedWeights, {"bits": 3}),
    "gptq": (GptqWeights, {}),
    "awq": (AwqWeights, {}),
    "smoothquant": (Smooth, {}),
    "qat": (Qat, {}),
    "magnitude": (Pruner, {}),
    "wanda": (Wanda, {}),
    "sparsegpt": (SparseGpt, {}),
}


def parse(recipe: Recipe) -> tuple[Any, ...]:
    """The recipe's methods as objects, in order.

    Raises:
      ValueError: an unknown method or option (the nearest one is named), or one of the wrong type.
    """
    rules = [recipe] if isinstance(recipe, Mapping) else list(recipe)
    return tuple(_method(dict(rule.items())) for rule in rules)


def _method(given: dict[str, Any]) -> Any:
    name = given.pop("method", None)
    if name not in METHODS:
        raise ValueError(f"unknown PEFT method {name!r}{meant(name, METHODS)}; have {sorted(METHODS)}")
    kind, preset = METHODS[name]
    known = {f.name: f for f in fields(kind) if f.name not in _said(preset)}
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"method {name!r} has no option {key!r}{meant(key, known)}; have {sorted(known)}")
        if type(value) not in _kinds(known[key].default):
            raise ValueError(f"option {key!r} of method {name!r} is like {known[key].default!r}; given {value!r}")
    return kind(**preset | {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def _said(preset: Mapping[str, Any]) -> set[str]:
    """The choices that the method's name says already ("dora", "int3"); they are no options of that name."""
    return {key for key, value in preset.items() if isinstance(value, bool) or key == "bits"}


def _kinds(default: Any) -> tuple[type, ...]:
    """Which types an option may have, by its default."""
    kinds: dict[type, tuple[type, ...]] = {float: (int, float), int: (int,), bool: (bool,)}
    return kinds.get(type(default), (str, list, tuple))


def describe(recipe: Recipe) -> list[dict[str, Any]]:
    """The recipe with every option written out, in types that JSON holds; `attach` takes it back."""
    rules = [recipe] if isinstance(recipe, Mapping) else list(recipe)
    out = []
    for rule, method in zip(rules, parse(recipe), strict=True):
        hidden = _said(METHODS[rule["method"]][1])
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(method).items() if k not in hidden}
        out.append({"method": rule["method"], **values})
    return out


def attach(
    params: Params,
    recipe: Recipe,
    key: Array,
    *,
    config: Any = None,
    tokenizer: Any = None,
    statistics: Statistics | None = None,
) -> Params:
    """The tree with the recipe's new weights in it; the base's arrays are shared, not copied.

    Unstacked layers (`tree.unstack`, `decoding.prepare`) are stacked first.

    config: the model's, for prefix tuning, AWQ and SmoothQuant. tokenizer: for a soft prompt that begins with a text.
    statistics: of the weights' inputs (`calibrate`), for calibrated quantization.

    Raises:
      ValueError: a pattern that matches nothing, or a size that does not fit a weight.
    """
    params = tree.stack(params)
    for i, method in enumerate(parse(recipe)):
        own = jax.random.fold_in(key, i)
        if isinstance(method, Prompt):
            params = method.attach(params, own, tokenizer)
        elif isinstance(method, Quantizer):
            params = method.attach(params, own, statistics, config)
        elif isinstance(method, Prefix) and config is not None:
            sizes = {"kv_heads": config.n_kv_heads, "head_dim": config.head_dim}
            params = Prefix(**asdict(method) | sizes).attach(params, own)
        else:
            params = method.attach(params, own)
    return params


def structure(shapes: Params, recipe: Recipe, *, config: Any = None) -> Params:
    """Shapes and types of the adapted model, from those of its base; nothing is allocated."""
    # Whatever a soft prompt begins with, it has the same shape.
    rules = [rule | ({"init": "random"} if "init" in rule else {}) for rule in describe(recipe)]
    adapted = lambda p: attach(p, rules, jax.random.key(0), config=config, statistics=blank(p))  # noqa: E731
    return jax.eval_shape(adapted, shapes)


def restored(stored: Mapping[str, Any], shapes: Params, recipe: Recipe, *, config: Any = None) -> Params:
    """Arrays read back by path, with the wrappers of the recipe around the base's `shapes` again.

    Raises:
      ValueError: the arrays are not those of this model with this recipe; paths and shapes are listed.
    """
    expected = structure(shapes, recipe, config=config)
    leaves = tree.paths(stored)
    _refuse_other_form(expected, leaves)
    tree.check_same(expected, stored)
    return tree.map_with_path(lambda path, _: leaves[path], expected)


def _refuse_other_form(expected: Params, stored: Mapping[str, Any]) -> None:
    """Says in one line that a weight was packed or wrapped in another way than the recipe does it."""
    for keys, node in jax.tree_util.tree_leaves_with_path(expected, is_leaf=is_weight):
        path = tree.path_of(keys)
        wanted = sorted(tree.paths(node)) if is_weight(node) else []
        found = sorted(name.removeprefix(f"{path}/") for name in stored if name.startswith(f"{path}/"))
        if found != wanted and (found or path in stored):
            given, asked = (arrays or "a plain array" for arrays in (found, wanted))
            raise ValueError(
                f"{path!r} is stored as {given}, asked for as {asked} (quantized, or with an adapter): load it with "
                "the recipe that it was made with"
            )


def trainable(params: Params, recipe: Recipe) -> Any:
    """A tree of booleans, true for what the recipe trains (see `tree.split`)."""
    methods = parse(recipe)
    paths = {path for method in methods if hasattr(method, "selected") for path in method.selected(params)}
    trained = {method.name for method in methods if hasattr(method, "name")}

    def mask(path: str, node: Any, chosen: bool) -> Any:
        if not is_wrapper(node):
            return jax.tree.map(lambda _: chosen and not is_packed(node), node)
        own = lambda field, value: jax.tree.map(  # noqa: E731
            lambda _: node.name in trained and field in node.TRAINS, value
        )
        return rebuild(node, mask(path, node.base, chosen), own)

    return jax.tree_util.tree_map_with_path(
        lambda keys, node: mask(tree.path_of(keys), node, tree.path_of(keys) in paths), params, is_leaf=is_weight
    )


def labels(params: Params, recipe: Recipe) -> Any:
    """ "train" or "freeze" for every array: the labels of `optax.partition`."""
    return jax.tree.map(lambda learns: "train" if learns else "freeze", trainable(params, recipe))


def rate_groups(recipe: Recipe) -> tuple[tuple[str, float], ...]:
    """The learning-rate groups (pattern, factor) that the recipe's methods ask for: LoRA+."""
    ratios = {method.rate_ratio for method in parse(recipe) if isinstance(method, Lora)}
    if len(ratios) > 1:
        raise ValueError(f"one recipe has LoRA rules with the rate ratios {sorted(ratios)}; give them one")
    return tuple((r".*/b", ratio) for ratio in ratios if ratio != 1)


def merge(params: Params) -> Params:
    """The tree with every wrapper folded into the array that computes the same; the program is the base's again.

    A soft prompt and a prefix are no part of a weight and stay.

    Raises:
      ValueError: a Houlsby adapter, which is not linear.
    """
    if isinstance(params, Mapping):
        out = {name: merge(sub) for name, sub in params.items()}
        if is_wrapper(params.get("kernel")) and "bias" in params:
            out["bias"] = folded_bias(params["kernel"], params["bias"])
        return out
    return fold(params) if is_wrapper(params) else params


def strip(params: Params, name: str | None = None) -> Params:
    """The tree without the adapters of that name, or without any, sharing the rest: the base as it was.

    Raises:
      ValueError: there is no adapter of that name.
    """
    known = names(params)
    if name is not None and name not in known:
        raise ValueError(f"no adapter is called {name!r}; have {list(known)}")

    def without(node: Any) -> Any:
        if not is_wrapper(node):
            return node
        base = without(node.base)
        return base if name in (None, node.name) else rebuild(node, base, lambda _, value: value)

    stripped = over_wrappers(without, params)
    return prefixes.removed(stripped) if name is None else stripped
