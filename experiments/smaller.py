"""One form of a model before it is quantized: units cut out or numbers masked, trained again, and folded."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from configs.compress import PLAIN
from experiments.trial import linear_decay, train
from research import weights
from research.core import tree
from research.core.names import meant
from research.models import Model, ModelConfig, build
from research.recipes.distill import beside_teacher, distillation_loss
from research.weights.prune import Pruner, gradual
from research.weights.slim import importance, slim

CUTS = ("heads", "columns", "layers", "encoder_layers")
RECOVERIES = ("", "full", "lora", "distil")
Make = Callable[[Mapping[str, Any], int], tuple[ModelConfig, Any]]  # form, seed -> config, plain weights


def smaller(subject: Any, form: Mapping[str, Any], seed: int) -> tuple[ModelConfig, Any]:
    """The config and plain weights of a form (`configs.compress.PLAIN`) of a subject (`experiments.quantized`)."""
    config, params, key = subject.config, subject.params, jax.random.key(seed)
    settings = subject.settings["recovery"]
    if form["slim"]:
        loss_fn = subject.loss(build(config, unroll=True))
        worth = importance(loss_fn, config, params, subject.batches(seed, settings["batches"]))
        config, params = slim(config, params, importance=worth, **kept(config, form["slim"]))
    model = build(config, unroll=True)
    stages = form["stages"] if form["prune"] else 1
    for stage in range(stages):
        recipe = recipe_of(form, stage, settings["lora_rank"])
        if not recipe:
            break
        run, batches = subject.hidden(model), subject.calibration(seed)
        params = weights.quantize(
            params, recipe, run=run, batches=batches, config=config, key=jax.random.fold_in(key, stage)
        )
        if form["recover"]:
            steps = max(1, settings["steps"] // stages)
            batches = subject.batches(seed, steps * stages)[stage * steps :][:steps]
            learns = weights.trainable(params, recipe)
            teaches = form["recover"] == "distil"
            params = recovered(subject, model, params, learns, teaches, batches, settings["learning_rate"], key)
        params = weights.merge(params)
    return config, params


def shared(subject: Any, forms: Sequence[Mapping[str, Any]]) -> Make:
    """`smaller` of a subject, done once for forms that differ in their bits alone."""

    def shape(form: Mapping[str, Any]) -> str:
        return repr({key: value for key, value in form.items() if key not in ("quantize", "policy")})

    several = {found for found, count in Counter(map(shape, forms)).items() if count > 1}
    made: dict[tuple[str, int], tuple[ModelConfig, Any]] = {}

    def make(form: Mapping[str, Any], seed: int) -> tuple[ModelConfig, Any]:
        at = (shape(form), seed)
        found = made.get(at) or smaller(subject, form, seed)
        if at[0] in several:
            made[at] = found
        return found

    return make


def recovered(
    subject: Any,
    model: Model,
    params: Any,
    learns: Any,
    teaches: bool,
    batches: Sequence[Any],
    learning_rate: float,
    key: jax.Array,
) -> Any:
    """The weights after one step per batch; where the whole model `teaches`, by the defaults of `distillation_loss`."""
    rule = linear_decay(learning_rate, len(batches), clip=1.0, weight_decay=0.0)
    if not teaches:
        return train(subject.loss(model), params, rule, batches, key, trainable=learns)[0]
    loss_fn = distillation_loss(model, build(subject.config, unroll=True))
    both, learns = beside_teacher(params, subject.params, learns=learns)
    return train(loss_fn, both, rule, batches, key, trainable=learns)[0]["student"]


def kept(config: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `slim`: shares of heads and columns as numbers, heads in groups that share keys."""
    out = dict(given)
    if "columns" in out:
        out["columns"] = round(out["columns"] * config.d_ff)
    if "heads" in out:
        shared = config.n_heads // config.n_kv_heads
        out["heads"] = max(1, round(out["heads"] * config.n_kv_heads)) * shared
    return out


def recipe_of(form: Mapping[str, Any], stage: int, rank: int) -> list[dict[str, Any]]:
    """What masks and what learns at one stage. LoRA stands below the mask, so that merging keeps the zeros."""
    masks = [dict(form["prune"])] if form["prune"] else []
    if masks and form["stages"] > 1:
        masks[0]["sparsity"] = gradual(stage + 1, form["stages"], masks[0]["sparsity"])
    if form["recover"] == "lora":
        return [{"method": "lora", "rank": rank, "target": r".*/layers/.*/kernel"}, *masks]
    return masks + ([{"method": "full"}] if form["recover"] else [])


def check_form(name: str, form: Mapping[str, Any]) -> None:
    """Refuses options and rules that do not exist or mean nothing."""
    for given, known in ((form, PLAIN), (form["slim"], CUTS)):
        if unknown := sorted(set(given) - set(known)):
            hint = meant(unknown[0], known)
            raise ValueError(f"form {name!r}: unknown option {unknown[0]!r}{hint}; have {sorted(known)}")
    if form["recover"] not in RECOVERIES:
        hint = meant(form["recover"], RECOVERIES)
        raise ValueError(f"form {name!r}: unknown recover {form['recover']!r}{hint}; have {list(RECOVERIES)}")
    for what in ("heads", "columns"):
        if not 0 < (share := form["slim"].get(what, 1)) <= 1:
            raise ValueError(f"form {name!r}: slim.{what} is the share that stays, in (0, 1]; given {share}")
    for rule in rules_of(form):
        if isinstance(rule, Pruner):
            rule.check()


def rules_of(form: Mapping[str, Any]) -> tuple[Any, ...]:
    """The rules of a form, read."""
    return weights.parse([*([form["prune"]] if form["prune"] else []), *form["quantize"]])


def sparsity(params: Any) -> float:
    """The share of the layers' kernels that is zero."""
    kernels = layer_kernels(params)
    return 1 - sum(int(np.count_nonzero(w)) for w in kernels) / sum(w.size for w in kernels)


def layer_kernels(params: Any) -> list[np.ndarray]:
    """What masks are for."""
    leaves = tree.paths(params).items()
    return [np.asarray(w) for path, w in leaves if "/layers/" in path and path.endswith("/kernel")]


def at_rest(params: Any, size: int, bits: float) -> int:
    """Bytes in a file of `size` bytes that leaves out the zeros of kernels of so many bits, with one bit per place."""
    zeros = sum(int(w.size - np.count_nonzero(w)) for w in layer_kernels(params))
    return round(size - zeros * bits / 8 + sum(w.size for w in layer_kernels(params)) / 8)


def pareto(points: Sequence[tuple[str, float, float]]) -> dict[str, list[tuple[str, float, float]]]:
    """The points (name, x, y) that no other one beats in both numbers, and the others without their names."""
    least, best = float("inf"), []
    for point in sorted(points, key=lambda p: p[1:]):
        if point[2] < least:
            least = point[2]
            best.append(point)
    groups = {"frontier": best, "the others": [("", *point[1:]) for point in points if point not in best]}
    return {name: found for name, found in groups.items() if found}
