"""How many bytes a training step or a decoder takes on every device, told from shapes before anything is allocated.

What stays between steps is counted from the trees themselves (`jax.eval_shape` of init, of the recipe's `attach`, of
the optimizer's `init`), so any method and any leaf type is counted by the arrays it has. What a step takes on top is
the fullest moment of the traced step (`scaling.live`). Under a mesh the step that is traced is that of one device:
its share of the rows, of the positions, and of the heads, the feed-forward width and the vocabulary.

B rows · T length · N parameters · V vocabulary
"""

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

from research import weights
from research.core import mesh as meshes
from research.core import tree
from research.core.dtypes import Policy
from research.models import Model, ModelConfig, build
from research.recipes.assemble import heads
from research.recipes.classify import classification_loss
from research.recipes.pretrain import language_model_loss
from research.scaling import live
from research.training import loss_scale, optim, state
from research.training.state import State
from research.training.step import make_step


class Account(NamedTuple):
    """Bytes on one device at the fullest moment; the first four are there all the time.

    Attributes:
      weights: all of them. optimizer: moments and counters. batch: the rows of a step. cache: keys and values.
      gradients, activations (kept for the backward pass), logits (of one chunk), temporaries: at that moment, so that
        what is not there together is not added up.
    """

    weights: int
    optimizer: int
    batch: int
    cache: int
    gradients: int
    activations: int
    logits: int
    temporaries: int

    @property
    def state(self) -> int:
        """What is there before the step begins."""
        return self.weights + self.optimizer + self.batch + self.cache

    @property
    def rest(self) -> int:
        """What the step takes on top."""
        return self.total - self.state

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


@dataclass(frozen=True)
class Setting:
    """A run, as far as its memory depends on it; the names are those of a training config.

    Attributes:
      rows: B, of an update over all devices. length: T. source: length of an encoder-decoder's inputs, 0 means T.
      recipe: of `research.weights`; empty trains everything. optimizer: as `training.optim.make` takes it.
      accumulate: micro-batches of an update. chunk: positions whose logits exist at a time.
      mesh: sizes of data, fsdp, tensor, sequence.
      packed: whether rows say of which text each token is and where it stands in it.
      answers: texts in each row of the batch, 2 of a pair. copied: whether a frozen reference is beside the weights.

    Raises:
      ValueError: no rows, rows that the mesh and the micro-batches do not divide, or a length the model does not take.
    """

    config: ModelConfig
    rows: int
    length: int
    source: int = 0
    recipe: weights.Recipe = ()
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"name": "adamw"})
    policy: Policy | str = "f32"
    remat: str = "none"
    unroll: bool | int = False
    accumulate: int = 1
    chunk: int = 128
    mesh: Mapping[str, int] = field(default_factory=dict)
    packed: bool = False
    answers: int = 1
    copied: bool = False

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"a batch has at least 1 row; given {self.rows}")
        for name in ("length", "source"):
            given = getattr(self, name)
            if not (name == "source" and given == 0) and not 1 <= given <= self.config.max_length:
                raise ValueError(f"{name} {given} does not fit the model: expected 1 to {self.config.max_length}")
        if unknown := sorted(set(self.mesh) - set(meshes.AXES)):
            raise ValueError(f"unknown mesh axes {unknown}; have {list(meshes.AXES)}")
        parts = self.accumulate * self.cut("data") * self.cut("fsdp")
        if self.accumulate < 1 or self.rows % parts:
            devices = f"data x fsdp = {self.cut('data')} x {self.cut('fsdp')} devices"
            raise ValueError(
                f"the batch has {self.rows} rows, which do not split into {self.accumulate} micro-batches on {devices}"
            )

    def cut(self, axis: str) -> int:
        """Over how many devices an axis of the mesh goes."""
        return int(self.mesh.get(axis, 1))

    @property
    def model(self) -> Model:
        """The model of the run."""
        return build(self.config, policy=self.policy, unroll=self.unroll, remat=self.remat)

    @property
    def shapes(self) -> Any:
        """The weights with what the recipe attaches, as shapes and types."""
        base = self.model.abstract()
        return weights.structure(base, self.recipe, config=self.config) if self.recipe else base

    def change(self, **changes: Any) -> "Setting":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def training(setting: Setting, *, cpu: bool | None = None) -> Account:
    """The account of one update.

    cpu: whether XLA's CPU backend compiles it, which keeps low precision in float32 and orders equations breadth
    first; None: whether the default backend is one. The step is traced for the backend at hand, so told on a CPU for
    a GPU it has the CPU's attention: what cuDNN would fuse there (bf16 encoders, windows, prefixes, ALiBi) is
    overstated by the scores; causal attention in blocks takes about what cuDNN takes.

    Raises:
      ValueError: what the model, the recipe or the optimizer refuses, or a mesh that does not divide a weight.
    """
    run = Run.of(setting)
    kept = run.bytes_per_device()
    one = Run.of(_local(setting)) if any(setting.cut(axis) > 1 for axis in meshes.AXES) else run
    with _ring_of_one(setting):
        moment = one.moment(jax.default_backend() == "cpu" if cpu is None else cpu)
    if setting.cut("fsdp") > 1:  # gradients are cut like the weights they belong to
        moment["gradients"] //= setting.cut("fsdp")
    moving = {name: moment[name] for name in ("gradients", "activations", "logits", "temporaries")}
    stays = (kept["params"] + kept["frozen"]) * (2 if setting.copied else 1)
    return Account(stays, kept["opt_state"], kept["batch"], 0, **moving)


def compiled(setting: Setting) -> tuple[int, int]:
    """(state, rest) of the same update on one device as XLA counts them when it compiles it."""
    run = Run.of(setting)
    lowered = jax.jit(run.update, donate_argnums=0).lower(run.state, run.frozen, run.batch)
    # Buffers are decided on before code is made, so the code may be bad: that saves half of the compile time.
    quick: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    found: Any = lowered.compile(compiler_options=quick).memory_analysis()
    return int(found.argument_size_in_bytes), int(found.temp_size_in_bytes)


def setting_of(config: Mapping[str, Any], model: Model, batch: Mapping[str, Any], mesh: Any = None) -> Setting:
    """The setting of a training config (see `recipes.assemble.DEFAULTS`), its model, and a batch of one process."""
    recipe = weights.describe(config["peft"] or ())
    if config["trainable"]:
        recipe += [{"method": "select", "target": tuple(config["trainable"])}]
    rows, *answers, length = batch["tokens"].shape
    # Beside each single answer stands a mismatched one, of which nothing is kept for a backward pass.
    answers = [] if "desirable" in batch else answers
    return Setting(
        model.config,
        rows * meshes.host_rows(mesh)[1],
        length,
        source=batch["inputs"].shape[-1] if "inputs" in batch else 0,
        recipe=recipe,
        optimizer=dict(config["optimizer"].items()),
        policy=model.policy,
        remat=model.remat,
        unroll=model.unroll,
        accumulate=config["accumulate"],
        chunk=config["chunk"],
        mesh={} if mesh is None else dict(mesh.shape),
        packed="positions" in batch,
        answers=math.prod(answers),
        copied=config["loss"].get("reference") == "copy",
    )


def decoding(setting: Setting, *, cpu: bool | None = None) -> Account:
    """The account of generating with `rows` rows up to `length` tokens each, on one device: the cache at its fullest.

    Raises:
      ValueError: an encoder, which does not generate, or a mesh.
    """
    if any(setting.cut(axis) > 1 for axis in meshes.AXES):
        raise ValueError(f"generation runs on one device; given the mesh {dict(setting.mesh)}")
    program, (shapes, tokens, cache) = _decoder(setting)
    traced = jax.jit(program).trace(shapes, tokens, cache).jaxpr
    label = _labels(setting.config, ())
    moment = live.peak(traced, label, cpu=jax.default_backend() == "cpu" if cpu is None else cpu)
    logits = setting.rows * setting.config.vocab_size * setting.model.policy.output.itemsize
    return Account(
        weights=tree_bytes(shapes),
        optimizer=0,
        batch=tree_bytes(tokens),
        cache=tree_bytes(cache),
        gradients=0,
        activations=0,
        logits=max(logits, moment["logits"]),
        temporaries=moment["temporaries"] + moment["activations"],
    )


def _decoder(setting: Setting) -> tuple[Any, tuple[Any, ...]]:
    """The program that decodes one token of every row, and its arguments: weights, tokens, arrays of the cache."""
    model, shapes = setting.model, jax.eval_shape(tree.unstack, setting.shapes)
    tokens = {"tokens": _ids(setting.rows, 1)}
    if setting.config.kind == "encoder_decoder":
        tokens["inputs"] = _ids(setting.rows, setting.source or setting.length)
    structure: list[Any] = []

    def begin(params: Any, batch: Any) -> list[Any]:
        arrays, kept = jax.tree.flatten(model.start(params, batch, setting.length))
        structure.append(kept)
        return arrays

    def one(params: Any, batch: Any, arrays: list[Any]) -> Any:
        out = model.apply(params, batch, cache=jax.tree.unflatten(structure[0], arrays))
        return model.logits(params, out.hidden), jax.tree.leaves(out.cache)

    return one, (shapes, tokens, jax.eval_shape(begin, shapes, tokens))


def tree_bytes(shapes: Any) -> int:
    """Bytes of all arrays of a tree (or of shapes)."""
    return sum(_bytes(leaf, leaf.shape) for leaf in jax.tree.leaves(shapes))


def _bytes(leaf: Any, shape: tuple[int, ...]) -> int:
    """Bytes of an array like `leaf`, were it of this shape; four-bit types take half a byte."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return 8 * math.prod(shape)  # threefry: two 32-bit words
    bits = 4 if leaf.dtype in (jnp.int4, jnp.uint4) else 8 * leaf.dtype.itemsize
    return -(-math.prod(shape) * bits // 8)


def _ids(rows: int, length: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, length), dtype)


class Run(NamedTuple):
    """A run as shapes."""

    setting: Setting
    state: State
    frozen: Any
    batch: dict[str, jax.ShapeDtypeStruct]
    update: Any
    optimizer: optim.Optimizer

    @classmethod
    def of(cls, setting: Setting) -> "Run":
        shapes, chosen = setting.shapes, setting.recipe
        learns = weights.trainable(shapes, chosen) if chosen else None
        params, frozen = (shapes, None) if learns is None else tree.split(shapes, learns)
        # The schedule takes no memory, and how it fits the run's steps is not asked here.
        optimizer = optim.make({**setting.optimizer, "schedule": "constant", "warmup": 0}, params, steps=1)
        key = jax.eval_shape(lambda: jax.random.key(0))
        step: Any = jax.ShapeDtypeStruct((), jnp.int32)
        scale: Any = jax.eval_shape(lambda: loss_scale.make({}, setting.model.policy, params))
        run = State(step, params, jax.eval_shape(optimizer.init, params), key, scale)
        classifies = setting.config.head in ("sequence", "token", "scalar")
        loss_fn = classification_loss(setting.model) if classifies else _language(setting)
        update = make_step(loss_fn, optimizer, accumulate=setting.accumulate).update
        return cls(setting, run, frozen, _batch(setting), update, optimizer)

    def bytes_per_device(self) -> Counter[str]:
        """What stays, by part of the state, under the mesh's layouts."""
        cuts = {axis: self.setting.cut(axis) for axis in meshes.AXES}
        mesh: Any = AbstractMesh(tuple(cuts.values()), meshes.AXES, axis_types=(AxisType.Auto,) * len(cuts))
        layouts = state.shardings((self.state, self.frozen), mesh, heads=heads(self.setting.config))
        parts = [
            (vars(self.state) | {"frozen": self.frozen, "batch": self.batch}),
            (vars(layouts[0]) | {"frozen": layouts[1], "batch": meshes.batch_shardings(self.batch, mesh)}),
        ]
        found: Counter[str] = Counter()
        for name, part in parts[0].items():
            pairs = zip(jax.tree.leaves(part), jax.tree.leaves(parts[1][name]), strict=True)
            found[name] += sum(_bytes(leaf, layout.shard_shape(leaf.shape)) for leaf, layout in pairs)
        return found

    def moment(self, cpu: bool) -> Counter[str]:
        """The fullest moment of the step: within the passes over the model, or within the optimizer's update."""
        traced = jax.jit(self.update).trace(self.state, self.frozen, self.batch).jaxpr
        found = live.peak(traced, _labels(self.setting.config, jax.tree.leaves(self.state.params)), cpu=cpu)
        updating = self._updating()
        return found if found.total() > updating.total() else updating

    def _updating(self) -> Counter[str]:
        """While the optimizer works there are the raw gradients and, where they are clipped, the clipped ones.

        Without clipping it is the new moments of the largest weight that are there beside them; XLA runs the loops of
        all weights (Muon's Newton-Schulz steps) side by side, so that what they carry is there as well.
        """
        params, grads = self.state.params, tree_bytes(self.state.params)
        loops = live.carried(jax.jit(self.optimizer.update).trace(params, self.state.opt_state, params).jaxpr)
        beside = 2 * max(_bytes(leaf, leaf.shape) for leaf in jax.tree.leaves(params)) + loops
        if self.setting.optimizer.get("clip", 1.0) and not loops:
            beside = grads
        return Counter({"gradients": grads, "temporaries": beside})


def _language(setting: Setting) -> Any:
    if setting.config.head not in ("lm", "mlm"):
        raise ValueError(f"nothing to train: a model with head {setting.config.head!r} has no loss")
    return language_model_loss(setting.model, chunk=setting.chunk)


def _batch(setting: Setting) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays that `recipes` and `data` give a step."""
    config, rows, length = setting.config, setting.rows * setting.answers, setting.length
    batch = {"tokens": _ids(rows, length)}
    if config.kind == "encoder_decoder":
        source = setting.source or length
        batch |= {"inputs": _ids(rows, source), "input_segment_ids": _ids(rows, source)}
    if setting.packed or config.kind != "decoder":
        batch["segment_ids"] = _ids(rows, length)
    if setting.packed:
        batch["positions"] = _ids(rows, length)
    if config.head in ("sequence", "scalar"):
        one = jax.ShapeDtypeStruct((rows,), jnp.int32)
        return batch | {"labels": one, "loss_mask": jax.ShapeDtypeStruct((rows,), jnp.float32)}
    wanted = "labels" if config.head == "token" else "targets"
    return batch | {wanted: _ids(rows, length), "loss_mask": _ids(rows, length, jnp.float32)}


def _local(setting: Setting) -> Setting:
    """The step of one device of the mesh as a run of its own."""
    config, cut = setting.config, setting.cut
    over, parts = cut("tensor"), cut("data") * cut("fsdp")
    config = config.replace(
        n_heads=config.n_heads // over,
        n_kv_heads=config.n_kv_heads // over,
        head_dim=config.head_dim,
        d_ff=config.d_ff // over,
        vocab_size=config.vocab_size // over,
    )
    lengths = {"length": setting.length // cut("sequence"), "source": setting.source // cut("sequence")}
    return setting.change(config=config, rows=setting.rows // parts, mesh={}, **lengths)


def _ring_of_one(setting: Setting) -> Any:
    """Where positions are cut, attention is traced as a device of the ring does it (`ops.ring`)."""
    if setting.cut("sequence") == 1:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("sequence",), axis_types=(AxisType.Auto,)))


def _labels(config: ModelConfig, params: Any) -> live.Label:
    """What the arrays of a step are counted as."""
    shapes = {(tuple(leaf.shape), leaf.dtype) for leaf in params if len(leaf.shape) > 1}

    def label(array: Any, maker: str, inside: bool) -> str:
        if (tuple(array.shape), array.dtype) in shapes:
            return "gradients"
        if array.shape and array.shape[-1] == config.vocab_size:
            return "logits"
        return "activations" if maker == "scan" and not inside else "temporaries"

    return label
