"""Distillation: a student learns from labels and from what a teacher says of the same batch.

What the teacher says comes from one of two places:
  weights of its own in the tree {"student": ..., "teacher": ...} (`beside_teacher`), which stay as they are
  the batch: `teacher_indices` and `teacher_logprobs` [..., K], its most probable tokens (`recipes.stored_teacher`), so
  that no teacher is in memory

B batch · T length · S source length · V vocabulary or labels · K stored · L layers
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from research.core.names import meant
from research.core.types import Array, Batch, Params
from research.models import Model
from research.models.model import Output
from research.objectives import Loss, attention_matching, divergence, hidden_matching, require, topk_divergence
from research.objectives.distillation import HEADS, masked_teacher
from research.objectives.sums import counted, kept, summed
from research.ops.cross_entropy import CHUNK, over_projections
from research.weights.prompts import virtual_ids

TOKENS, LABELS = ("lm", "mlm"), ("sequence", "token")
Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Match:
    """Which layers of a student's stack are to be like which of the teacher's.

    Attributes:
      hidden: (student's, teacher's) states: 0 the embeddings, i the output of layer i, L the last one after its norm.
      attention: (student's, teacher's) layers, counted from 0.
      hidden_weight, attention_weight: factors on the two terms, each a mean over its pairs.
      heads: "each" or "mean", see `objectives.attention_matching`.
    """

    hidden: Pairs = ()
    attention: Pairs = ()
    hidden_weight: float = 1.0
    attention_weight: float = 1.0
    heads: str = "each"


def distillation_loss(
    student: Model,
    teacher: Model | None = None,
    *,
    alpha: float = 0.5,
    temperature: float = 2.0,
    beta: float = 0.0,
    match: Match = Match(),
    encoder_match: Match = Match(),
    chunk: int = CHUNK,
) -> Callable[[Params, Batch, Array | None], Loss]:
    """Σ mask · ( α · cross-entropy + (1 − α) · `objectives.divergence` ) + what matches layers.

    Heads "lm" and "mlm" read `targets` and `loss_mask` [B, T], "sequence" and "token" `labels` and `loss_mask`. Where
    the batch says `sampled` [B] = 1, the targets are the student's own and have no cross-entropy. Layers are compared
    at supervised positions with their weights; under labels of sequences, and in an encoder beside a decoder, all
    tokens of a row share the row's weight. The student has dropout with an rng, the teacher never.

    Args:
      teacher: None where the batch holds what it said.
      alpha: α, 1 for the labels alone. temperature, beta: see `objectives.divergence`.
      match, encoder_match: of the only stack, or of the decoder's, and of an encoder beside it.
      chunk: positions whose logits, of both, are in memory at a time.
    Metrics: `cross_entropy`, `divergence`, `accuracy`, `agreement` with the teacher, and `hidden`, `attention`,
      `encoder_hidden`, `encoder_attention` where they are asked for.

    Raises:
      ValueError: two models that do not say the same kind of thing, layers that do not exist, an option out of range.
    """
    require.share("alpha", alpha)
    require.positive("temperature", temperature)
    require.share("beta", beta)
    check_pair(student, teacher, match, encoder_match)
    sides = {"": match, "encoder_": encoder_match}

    def loss_fn(params: Params, batch: Batch, rng: Array | None) -> Loss:
        keys = (None, None) if rng is None else jax.random.split(rng)
        states, maps = (any(getattr(side, what) for side in sides.values()) for what in ("hidden", "attention"))
        mine = student.apply(params["student"], batch, rng=keys[0], hidden_states=states, attentions=maps)
        both = [(student, params["student"], mine)]
        if teacher is not None:
            _check_reads(params["student"])
            frozen = jax.lax.stop_gradient(params["teacher"])
            both.append((teacher, frozen, teacher.apply(frozen, batch, hidden_states=states, attentions=maps)))
        compare = _Compare(temperature, beta)
        if student.config.head in TOKENS:
            found = _of_tokens(both, batch, compare, chunk)
        else:
            scores = student.classify(params["student"], mine, batch, rng=keys[1])
            said = [model.classify(weights, output, batch) for model, weights, output in both[1:]]
            found = compare(scores, said or _stored(batch), batch["labels"], batch["loss_mask"])
        hard = jnp.where(_sampled(batch, found["cross_entropy"]), 0, found["cross_entropy"])
        mask = batch["loss_mask"]
        metrics = {name: counted(values, mask) for name, values in found.items()}
        total, aux = summed(alpha * hard + (1 - alpha) * found["divergence"], mask, metrics)
        for prefix, side in sides.items():
            learned = params.get("match", {}).get(f"{prefix}hidden", {}).get("kernel")
            for name, (term, weight) in _matching(prefix, side, [part[2] for part in both], learned, batch).items():
                total += weight * term
                aux["metrics"][name] = jax.lax.stop_gradient((term, aux["weight"]))
        return total, aux

    return loss_fn


@dataclass(frozen=True)
class _Compare:
    """Both losses of every position, for logits [..., V] and what the teacher said of them."""

    temperature: float
    beta: float

    def __call__(self, student: Array, said: Sequence[Array], targets: Array, mask: Array) -> dict[str, Array]:
        options = {"temperature": self.temperature, "beta": self.beta}
        if len(said) == 2:
            student, indices, logprobs = masked_teacher(student, said[0], said[1], mask)
            apart = topk_divergence(student, indices, logprobs, **options)
            best = jnp.argmax(logprobs, axis=-1, keepdims=True)
            choice = jnp.take_along_axis(indices, best, axis=-1)[..., 0]
        else:
            student, teacher = kept(student, mask[..., None]), kept(said[0], mask[..., None])
            apart = divergence(student, teacher, **options)
            choice = jnp.argmax(teacher, axis=-1)
        targets = jnp.where(mask > 0, targets, 0)
        chosen = jnp.take_along_axis(student, targets[..., None], axis=-1)[..., 0]
        mine = jnp.argmax(student, axis=-1)
        return {
            "cross_entropy": jax.nn.logsumexp(student, axis=-1) - chosen,
            "divergence": apart,
            "accuracy": (mine == targets).astype(jnp.float32),
            "agreement": (mine == choice).astype(jnp.float32),
        }


def _of_tokens(
    both: Sequence[tuple[Model, Params, Output]], batch: Batch, compare: _Compare, chunk: int
) -> dict[str, Array]:
    """What `_Compare` finds at every position [B, T], with the logits of `chunk` positions in memory at a time."""
    mask = batch["loss_mask"]
    layers = []
    for model, params, output in both:
        features, *rest = model.projection(params, output.hidden)
        # Selected here too: a masked position that is NaN would reach the table's gradient as NaN · 0.
        layers.append((jnp.where(mask[..., None] > 0, features, 0), *rest))
    stored = () if len(both) == 2 else _stored(batch)

    def one(*parts: Array) -> dict[str, Array]:
        logits, (targets, on, *rest) = parts[: len(both)], parts[len(both) :]
        return compare(logits[0], (*logits[1:], *rest), targets, on)

    return over_projections(one, layers, batch["targets"], mask, *stored, chunk=chunk)


def _stored(batch: Batch) -> tuple[Array, Array]:
    return batch["teacher_indices"], batch["teacher_logprobs"]


def _sampled(batch: Batch, like: Array) -> Array:
    """Where the targets are the student's own, in the shape of the losses."""
    if "sampled" not in batch:
        return jnp.zeros(like.shape, bool)
    return jnp.broadcast_to(batch["sampled"].reshape(-1, *(1,) * (like.ndim - 1)) > 0, like.shape)


def _matching(
    prefix: str, side: Match, both: Sequence[Output], maps: Array | None, batch: Batch
) -> dict[str, tuple[Array, float]]:
    """{name: (Σ of the term, its factor)} of one stack."""
    names = ("encoder_states", "encoder_attentions") if prefix else ("hidden_states", "attentions")
    states, attentions = ([getattr(output, name) for output in both] for name in names)
    found = {}
    if side.hidden:
        weights = _token_weights(prefix, batch, states[0].shape[1:3])
        each = [
            hidden_matching(states[0][i], states[1][j], weights, projection=None if maps is None else maps[at])[0]
            for at, (i, j) in enumerate(side.hidden)
        ]
        found[f"{prefix}hidden"] = (jnp.mean(jnp.stack(each)), side.hidden_weight)
    if side.attention:
        weights = _token_weights(prefix, batch, (attentions[0].shape[1], attentions[0].shape[3]))
        each = [
            attention_matching(attentions[0][i], attentions[1][j], weights, heads=side.heads)[0]
            for i, j in side.attention
        ]
        found[f"{prefix}attention"] = (jnp.mean(jnp.stack(each)), side.attention_weight)
    return found


def _token_weights(prefix: str, batch: Batch, shape: tuple[int, ...]) -> Array:
    """How much each position counts [B, T] or [B, S]; they sum to the weight of the row."""
    mask = batch["loss_mask"].astype(jnp.float32)
    if mask.ndim == 2 and not prefix:
        return mask
    segments = batch.get("input_segment_ids" if prefix else "segment_ids")
    real = jnp.ones(shape, jnp.float32) if segments is None else (segments > 0).astype(jnp.float32)
    row = mask if mask.ndim == 1 else jnp.sum(mask, axis=1)
    return row[:, None] * real / jnp.maximum(jnp.sum(real, axis=1, keepdims=True), 1)


def beside_teacher(
    student: Params,
    teacher: Params | None = None,
    projections: Params | None = None,
    *,
    learns: Any = None,
) -> tuple[dict[str, Params], dict[str, Any]]:
    """({"student", "teacher", "match"}, which of it is trained), as a training state wants them.

    learns: a tree of booleans of a student under adapters (`weights.trainable`); None: all of it.
    """
    parts = {"student": student, "teacher": teacher, "match": projections or None}
    params = {name: part for name, part in parts.items() if part is not None}
    masks = {name: jax.tree.map(lambda _, on=name != "teacher": on, part) for name, part in params.items()}
    return params, masks if learns is None else masks | {"student": learns}


def match_projections(
    key: Array,
    student: Model,
    teacher: Model,
    match: Match = Match(),
    encoder_match: Match = Match(),
) -> dict[str, dict[str, Array]]:
    """Kernels [pairs, D_student, D_teacher] for the matched hidden states, to be trained; none for equal widths."""
    widths = (student.config.d_model, teacher.config.d_model)
    counts = {"hidden": len(match.hidden), "encoder_hidden": len(encoder_match.hidden)}
    if widths[0] == widths[1]:
        return {}
    return {
        name: {"kernel": jax.random.normal(jax.random.fold_in(key, i), (count, *widths)) * widths[0] ** -0.5}
        for i, (name, count) in enumerate(counts.items())
        if count
    }


def check_pair(student: Model, teacher: Model | None, match: Match, encoder_match: Match) -> None:
    """Refuses two models of which one cannot learn from the other."""
    mine = student.config
    if mine.head not in TOKENS + LABELS:
        raise ValueError(f"distillation needs a head of {[*TOKENS, *LABELS]}; the student has {mine.head!r}")
    if teacher is None:
        if any(side.hidden or side.attention for side in (match, encoder_match)):
            raise ValueError("layers are matched with a teacher that is there; a batch holds only what it said")
        return
    theirs = teacher.config
    for what in ("kind", "head"):
        if getattr(mine, what) != getattr(theirs, what):
            raise ValueError(
                f"the teacher's {what} is {getattr(theirs, what)!r}, the student's {getattr(mine, what)!r}"
            )
    size = "vocab_size" if mine.head in TOKENS else "n_labels"
    if getattr(mine, size) != getattr(theirs, size):
        words = "tokens" if mine.head in TOKENS else "labels"
        counts = f"{getattr(theirs, size)} {words}, the student has {getattr(mine, size)}"
        raise ValueError(f"the teacher has another vocabulary: {counts}")
    both = mine.kind == "encoder_decoder"
    if not both and (encoder_match.hidden or encoder_match.attention):
        raise ValueError(f"encoder_match is for an encoder beside a decoder; the models are of kind {mine.kind!r}")
    _check_layers("match", match, (mine.n_layers, theirs.n_layers), (mine.n_heads, theirs.n_heads))
    layers = (mine.n_encoder_layers, theirs.n_encoder_layers)
    _check_layers("encoder_match", encoder_match, layers, (mine.n_heads, theirs.n_heads))


def _check_layers(name: str, match: Match, layers: tuple[int, int], heads: tuple[int, int]) -> None:
    require.not_negative(f"{name}.hidden_weight", match.hidden_weight)
    require.not_negative(f"{name}.attention_weight", match.attention_weight)
    if match.heads not in HEADS:
        raise ValueError(f"unknown {name}.heads {match.heads!r}{meant(match.heads, HEADS)}; have {list(HEADS)}")
    for what, pairs, last in (("hidden", match.hidden, 0), ("attention", match.attention, -1)):
        for pair in pairs:
            for who, index, count in zip(("student", "teacher"), pair, layers, strict=True):
                if not 0 <= index <= count + last:
                    raise ValueError(
                        f"{name}.{what}: the {who} has {what} 0 to {count + last} in its {count} layers; given {index} "
                        f"in {tuple(pair)}"
                    )
    if match.attention and match.heads == "each" and heads[0] != heads[1]:
        raise ValueError(
            f"{name}: the student has {heads[0]} heads and the teacher {heads[1]}; compare their means (heads='mean')"
        )


def _check_reads(student: Params) -> None:
    if virtual_ids(student):
        raise ValueError(
            "a student with a soft prompt reads other tokens than its teacher; store what the teacher says of the rows "
            "without them"
        )
