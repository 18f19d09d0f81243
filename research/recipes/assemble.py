"""From one config to everything a training run needs, with every mismatch refused before work begins.

The config's sections: `model` (a preset and changes, `policy`, `unroll`, `remat`), `tokenizer`, `data`
(`research.data.build`), `loss` (`research.recipes.losses`), `optimizer` (`research.training.optim`), `mesh`, and the
run's own numbers, see `DEFAULTS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from research import weights
from research.core import hosts, tree
from research.core import mesh as meshes
from research.core.names import meant
from research.data import build, load_tokenizer, one_pass
from research.data.sentencepiece_tokenizer import train_sentencepiece
from research.interop.run import config_from_dict
from research.models import Model, ModelConfig
from research.models import build as build_model
from research.recipes import losses
from research.recipes.dpo import without_adapter
from research.recipes.origin import Teacher, loaded, teacher_of
from research.recipes.reference import MakeRows, rows_beside, rows_once
from research.training import loss_scale, optim, state
from research.training.evaluate import Evaluate, make_evaluate
from research.training.optim import Optimizer
from research.training.step import LossFn, Step, make_step
from research.weights.prompts import virtual_ids

DEFAULTS: dict[str, Any] = {
    "steps": 1000,
    "seed": 0,
    "accumulate": 1,  # micro-batches per update
    "chunk": 128,  # positions whose logits exist at a time
    "init_from": "",  # a Hugging Face folder or hub id, or a run's checkpoints: weights to begin with
    "trainable": (),  # patterns of the weights that learn; none: all
    "peft": (),  # a method of `research.weights` or several, such as {"method": "lora", "rank": 8}; none: all learns
    "evaluate_every": 0,
    "evaluate_batches": 8,
    "patience": 0,  # evaluations without a better one before the run stops; 0: never
    "save_every": 0,
    "keep": 2,
    "log_every": 1,
    "tensorboard": False,
    "wandb": {},
    "mesh": {},  # sizes of data, fsdp, tensor, sequence; empty: one device
    "cache": None,  # folder of compiled programs; "" turns it off
    "model": {},
    "tokenizer": {},
    "data": {},
    "loss": {},  # of judged answers: `research.recipes.losses`; empty: the objective of the data
    "optimizer": {},
    "loss_scale": {},  # of policies that compute in float16: `research.training.loss_scale.DEFAULTS`
}
_MODEL_CHOICES = {"policy": "f32", "unroll": False, "remat": "none"}
_TOKENIZER_DEFAULTS = {"path": "", "kind": "bpe", "vocab_size": 4096, "sentinels": 0, "max_text_length": 16_384}
_KINDS = {
    "causal": ("decoder",),
    "prefix": ("decoder",),
    "tune": ("decoder",),
    "tune_prefix": ("decoder",),
    "mlm": ("encoder",),
    "span": ("encoder_decoder",),
    "denoise": ("encoder_decoder",),
    "seq2seq": ("encoder_decoder",),
    "preference": ("decoder", "encoder"),
    "preference_seq2seq": ("encoder_decoder",),
    "unpaired": ("decoder",),
    "unpaired_seq2seq": ("encoder_decoder",),
}


@dataclass(frozen=True)
class Assembled:
    """A run, ready to start: hand it to `research.training.fit`."""

    model: Model
    tokenizer: Any
    source: Any
    loss_fn: LossFn
    optimizer: Optimizer
    step: Step
    evaluate: Evaluate
    state: Any
    frozen: Any
    mesh: Mesh | None
    recipe: list[dict[str, Any]]  # of all its weights, those of `init_from` first


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """The config with defaults filled in.

    Raises:
      ValueError: a key that does not exist, with the nearest one that does.
    """
    return _filled(given, DEFAULTS, "config") | {
        "tokenizer": _filled(given.get("tokenizer", {}), _TOKENIZER_DEFAULTS, "config.tokenizer")
    }


def _filled(given: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> dict[str, Any]:
    for name in given:
        if name not in defaults:
            raise ValueError(f"unknown key {where}.{name}{meant(name, defaults)}; have {sorted(defaults)}")
    return dict(defaults) | dict(given)


def make_tokenizer(config: Mapping[str, Any], folder: Path) -> Any:
    """The tokenizer at `tokenizer.path`, else one trained on the training split and kept in folder/tokenizer."""
    settings = config["tokenizer"]
    if settings["path"]:
        return load_tokenizer(settings["path"])
    kept = folder / "tokenizer"
    if not kept.is_dir():
        objective = config["data"].get("objective", "causal")
        special = ("<mask>",) if objective in ("mlm", "denoise") else ()
        sentinels = settings["sentinels"] or (100 if objective == "span" else 0)
        train_sentencepiece(
            build.texts(build.DataConfig.of(config["data"]), "train"),
            settings["vocab_size"],
            kind=settings["kind"],
            special_tokens=special,
            sentinels=sentinels,
            max_text_length=settings["max_text_length"],
        ).save(kept)
    return load_tokenizer(kept)


class Begun(NamedTuple):
    """The model of a run, the weights it begins with (None: fresh ones), and the recipe that those were made by."""

    model: Model
    params: Any
    recipe: list[dict[str, Any]]


def make_model(config: Mapping[str, Any], tokenizer: Any) -> Begun:
    """The model that the config describes, or that of `init_from`.

    Raises:
      ValueError: a vocabulary too small for the tokenizer, rows longer than the model, or an objective that the
        kind of model cannot learn.
    """
    settings = dict(config["model"])
    choices = {name: settings.pop(name, default) for name, default in _MODEL_CHOICES.items()}
    params: Any = None
    recipe: list[dict[str, Any]] = []
    if config["init_from"]:
        described, params, recipe = loaded(config["init_from"], settings, jax.random.key(config["seed"]))
    else:
        ids = {name: getattr(tokenizer, name) for name in ("bos_id", "eos_id", "pad_id")}
        named = {name: -1 if value is None else value for name, value in ids.items()}
        described = config_from_dict({"vocab_size": tokenizer.vocab_size} | named | settings)
    check_fits(described, config["data"], tokenizer)
    return Begun(build_model(described, **choices), params, recipe)


def check_fits(described: ModelConfig, data: Mapping[str, Any], tokenizer: Any) -> None:
    """Refuses a model that does not fit its tokenizer or its data; see `make_model`."""
    if tokenizer.vocab_size > described.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model's vocabulary {described.vocab_size}; "
            "set model.vocab_size or take the model's own tokenizer"
        )
    sections = data["mix"].values() if "mix" in data else [data]
    for section in sections:
        one = build.DataConfig.of(section)
        for name, given in (("length", one.length), ("targets_length", one.targets_length)):
            if given > described.max_length:
                raise ValueError(f"data.{name} {given} is longer than the model's max_length {described.max_length}")
        if described.kind not in _KINDS[one.objective]:
            fitting = " or ".join(repr(kind) for kind in _KINDS[one.objective])
            raise ValueError(
                f"objective {one.objective!r} needs a model of kind {fitting}; {described.family!r} is of kind "
                f"{described.kind!r}"
            )


def heads(described: ModelConfig) -> meshes.Heads:
    """Which weights are made of heads, so that a mesh never cuts one."""
    return (
        (r".*(attention|cross)/(q|o)/.*", described.n_heads),
        (r".*(attention|cross)/(k|v)/.*", described.n_kv_heads),
    )


Check: TypeAlias = Callable[[Mapping[str, Any], Model, Mapping[str, Any], Mesh | None], None]


def assemble(config: Mapping[str, Any], folder: Path, *, check: Check | None = None) -> Assembled:
    """Everything of the run that `config` (see `complete`) describes; a trained tokenizer is kept in `folder`.

    check: called with the config, the model, a batch and the mesh before the state takes memory; it may refuse.
    """
    chosen = losses.choose(config)
    with hosts.first_alone("tokenizer"):
        tokenizer = make_tokenizer(config, folder)
    begun = make_model(config, tokenizer)
    model = begun.model
    parts = sorted(config["data"].get("mix", ()))
    key = jax.random.key(config["seed"])
    unroll = config["model"].get("unroll", False)
    teacher = teacher_of(chosen.teacher, model, unroll, tokenizer, key) if chosen.teacher else None
    loss_fn = losses.make(chosen, model, chunk=config["chunk"], parts=parts, teacher=teacher and teacher.model)
    mesh = meshes.make_mesh(config["mesh"]) if config["mesh"] else None
    check_hosts(mesh, chosen.reference)
    plan = planned(config, begun, chosen, tokenizer, key, teacher)
    config, trainable = plan.config, plan.trainable
    learning = plan.shapes if trainable is None else tree.split(plan.shapes, trainable)[0]
    check_learns(learning)
    optimizer = optim.make(plan.rules, learning, steps=config["steps"])
    scale = loss_scale.make(config["loss_scale"], model.policy, learning)
    shard = meshes.host_rows(mesh)
    rows = rows_once() if chosen.reference == "batch" else build.build_rows
    source = build.build_source(config["data"], tokenizer, shard=shard, rows=rows)
    if check is not None:
        everything = [{"method": "full"}] if plan.recipe and trainable is None else []
        check(dict(config) | {"peft": [*plan.recipe, *everything]}, model, source.example_batch(), mesh)
    if chosen.reference == "batch":
        rows = beside_reference(config, folder, model, plan.reference, rows, mesh)
        source = build.build_source(config["data"], tokenizer, shard=shard, rows=rows)
    beside = () if teacher is None else [(f"teacher/{path}", n) for path, n in heads(teacher.model.config)]
    begin, frozen = state.create(
        plan.begin_with,
        optimizer,
        rng=jax.random.fold_in(key, 1),
        trainable=trainable,
        loss_scale=scale,
        mesh=mesh,
        heads=(*beside, *heads(model.config)),
    )
    return Assembled(
        model=model,
        tokenizer=tokenizer,
        source=source,
        loss_fn=loss_fn,
        optimizer=optimizer,
        step=make_step(loss_fn, optimizer, accumulate=config["accumulate"], mesh=mesh),
        evaluate=make_evaluate(loss_fn, held_out(config, tokenizer, rows, shard), mesh=mesh),
        state=begin,
        frozen=frozen,
        mesh=mesh,
        recipe=plan.recipe,
    )


def check_hosts(mesh: Mesh | None, reference: str) -> None:
    """Refuses what several processes cannot do together."""
    if hosts.several() and mesh is None:
        raise ValueError(f"{jax.process_count()} hosts need a mesh over their devices: --config.mesh.data=-1")
    if hosts.several() and reference == "batch":
        raise ValueError("loss.reference 'batch' is computed and kept by one process; several hosts take 'copy'")


class Plan(NamedTuple):
    """What a run begins with and which of it learns.

    Attributes:
      config: with the data of this model (virtual tokens, the decoder's first one). begin_with, reference: weights, or
        functions that make them; reference is None where there is none of its own. trainable: None for everything.
      rules: of the optimizer.
    """

    config: Mapping[str, Any]
    begin_with: Any
    shapes: Any
    trainable: Any
    reference: Any
    rules: dict[str, Any]
    recipe: list[dict[str, Any]]


def planned(
    config: Mapping[str, Any], begun: Begun, chosen: losses.Chosen, tokenizer: Any, key: Any, teacher: Teacher | None
) -> Plan:
    """The weights of a run: the base, what `peft` attaches, and a reference or a teacher beside them."""
    model, params, recipe = begun
    begin_with = params if params is not None else lambda: model.init(jax.random.fold_in(key, 0))
    reference = None
    if chosen.reference in ("copy", "batch"):
        reference = begin_with
    if chosen.reference_from:
        described, reference, _ = loaded(chosen.reference_from, {}, key)
        losses.check_reference(model.config, described)
    shapes = model.abstract() if params is None else params
    trainable = tree.select(shapes, list(config["trainable"])) if config["trainable"] else None
    rules = dict(config["optimizer"].items())
    if config["peft"]:
        if trainable is not None:
            raise ValueError("give either `trainable` or `peft`: {'method': 'select', 'target': ...} is a peft method")
        begin_with = adapted(config["peft"], begin_with, model, tokenizer, jax.random.fold_in(key, 2))
        shapes = jax.eval_shape(begin_with)
        trainable = weights.trainable(shapes, config["peft"])
        rules["rate_groups"] = (*weights.rate_groups(config["peft"]), *rules.get("rate_groups", ()))
        config = prompted(config, virtual_ids(shapes), model.config)
        recipe = [*recipe, *weights.describe(config["peft"])]
    if chosen.reference == "adapter":
        without_adapter(shapes, chosen.adapter)  # refuses a recipe that leaves no base below it
        losses.check_stays(trainable, chosen.adapter)
    if chosen.reference == "copy":
        begin_with, shapes, trainable = losses.beside_frozen(begin_with, shapes, trainable, reference)
    if teacher is not None:
        both = ("student", "teacher")
        begin_with, shapes, trainable = losses.beside_frozen(begin_with, shapes, trainable, teacher.params, both)
    if model.config.kind == "encoder_decoder":
        config = in_sections(config, lambda given: given | {"decoder_start": model.config.decoder_start_id})
    return Plan(config, begin_with, shapes, trainable, reference, rules, recipe)


def beside_reference(
    config: Mapping[str, Any], folder: Path, model: Model, reference: Any, rows: MakeRows, mesh: Mesh | None
) -> MakeRows:
    """Rows that also hold what the reference says, which is computed here unless `folder` has it already."""
    params = jax.jit(reference)() if callable(reference) else reference
    if mesh is not None:
        params = jax.device_put(params, meshes.shardings(params, meshes.RULES, mesh, heads=heads(model.config)))
    size = config["data"].get("batch_size", build.DataConfig.batch_size)
    return rows_beside(folder, model, params, rows, batch_size=size, chunk=config["chunk"], mesh=mesh)


def check_learns(learning: Any) -> None:
    """Refuses to train integers, which have no gradient."""
    numbers = tree.paths(learning)
    if whole := sorted(path for path, leaf in numbers.items() if not jnp.issubdtype(leaf.dtype, jnp.floating)):
        raise ValueError(
            f"{whole[0]!r} is quantized and cannot learn: train something beside it, as with peft "
            "{'method': 'lora'}, or name other weights in `trainable`"
        )


def adapted(recipe: weights.Recipe, base: Any, model: Model, tokenizer: Any, key: Any) -> Callable[[], Any]:
    """A function that makes the adapted weights from the base, given as a tree or as a function that makes one."""

    def make() -> Any:
        params = base() if callable(base) else base
        return weights.attach(params, recipe, key, config=model.config, tokenizer=tokenizer)

    return make


def prompted(config: Mapping[str, Any], ids: list[int], described: ModelConfig) -> dict[str, Any]:
    """The config whose data put the ids of a soft prompt in front of every text.

    Raises:
      ValueError: rows that no longer fit the model with the prompt in front of them.
    """
    if not ids:
        return dict(config)

    def section(given: dict[str, Any]) -> dict[str, Any]:
        one = build.DataConfig.of(given)
        grown = one.length + (0 if one.objective in build.FROM_EXAMPLES else len(ids))
        if grown > described.max_length:
            raise ValueError(
                f"data.length {one.length} and {len(ids)} virtual tokens do not fit the model's max_length "
                f"{described.max_length}"
            )
        return given | {"virtual": tuple(ids)}

    return in_sections(config, section)


def in_sections(config: Mapping[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """The config with its data section changed, or every section of a mixture."""
    data = dict(config["data"].items())
    if "mix" in data:
        data["mix"] = {name: change(dict(one.items())) for name, one in data["mix"].items()}
        return dict(config) | {"data": data}
    return dict(config) | {"data": change(data)}


def held_out(
    config: Mapping[str, Any], tokenizer: Any, make: MakeRows = build.build_rows, shard: tuple[int, int] = (0, 1)
) -> dict[str, list[Any]] | list[Any]:
    """The first batches of the held-out split, each row once; of a mixture, those of each of its parts by name."""
    data = config["data"]
    size = data.get("batch_size", build.DataConfig.batch_size)

    def first(section: Mapping[str, Any]) -> list[Any]:
        rows = make(section, tokenizer, "heldout")
        return list(one_pass(rows, size, shard=shard))[: config["evaluate_batches"] or None]

    return {name: first(section) for name, section in data["mix"].items()} if "mix" in data else first(data)
