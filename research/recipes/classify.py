"""Fine-tuning on labels: of whole sequences, of tokens, or a number for each sequence.

B batch · T length · C labels
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core.types import Array, Batch, Params
from research.models import Model


def classification_loss(model: Model) -> Callable[[Params, Batch, Array | None], tuple[Array, dict[str, Any]]]:
    """-Σ mask · log softmax(scores)[label], or Σ mask · (score - label)² with a scalar head.

    The batch holds `labels` and `loss_mask` beside the model's inputs: [B] for heads "sequence" and "scalar", [B, T]
    for "token". Metrics: accuracy, or the squared error. With an rng, dropout is on.
    """
    if model.config.head not in ("sequence", "token", "scalar"):
        raise ValueError(f"labels need a head 'sequence', 'token' or 'scalar'; the model has {model.config.head!r}")

    def loss_fn(params: Params, batch: Batch, rng: Array | None) -> tuple[Array, dict[str, Any]]:
        keys = (None, None) if rng is None else jax.random.split(rng)
        output = model.apply(params, batch, rng=keys[0])
        scores = model.classify(params, output, batch, rng=keys[1])
        labels, mask = batch["labels"], batch["loss_mask"].astype(jnp.float32)
        on = mask > 0
        weight = jnp.sum(mask)
        if model.config.head == "scalar":
            error = jnp.where(on, mask * (scores - jnp.where(on, labels, 0)) ** 2, 0)
            return jnp.sum(error), {"weight": weight, "metrics": {"squared_error": (jnp.sum(error), weight)}}
        chosen = jnp.where(on, labels, 0)
        nll = jax.nn.logsumexp(scores, -1) - jnp.take_along_axis(scores, chosen[..., None], axis=-1)[..., 0]
        right = jnp.sum(jnp.where(on, mask * (jnp.argmax(scores, axis=-1) == chosen), 0))
        # Selected, not multiplied: whatever a padded row computes, it adds exactly nothing.
        return jnp.sum(jnp.where(on, mask * nll, 0)), {"weight": weight, "metrics": {"accuracy": (right, weight)}}

    return loss_fn


def labelled_batch(
    texts: Sequence[Sequence[int]], labels: Sequence[Any], length: int, *, n_labels: int, pad_id: int = 0
) -> dict[str, np.ndarray]:
    """A right-padded batch of token ids with one label per text, or one per token.

    Raises:
      ValueError: an empty text, one longer than `length`, or a label outside 0 .. n_labels - 1; names the row.
    """
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} texts but {len(labels)} labels")
    per_token = bool(len(labels)) and np.ndim(labels[0]) == 1
    shape = (len(texts), length)
    tokens, segments = np.full(shape, pad_id, np.int32), np.zeros(shape, np.int32)
    wanted = np.zeros(shape if per_token else shape[:1], np.int32)
    mask = np.zeros(wanted.shape, np.float32)
    for i, (ids, label) in enumerate(zip(texts, labels, strict=True)):
        if not 0 < len(ids) <= length:
            raise ValueError(f"text {i} has {len(ids)} tokens; expected 1 to {length}")
        if per_token and len(label) != len(ids):
            raise ValueError(f"text {i} has {len(ids)} tokens but {len(label)} labels")
        if np.min(label) < 0 or np.max(label) >= n_labels:
            raise ValueError(f"text {i} has label {label}; the model knows 0 to {n_labels - 1}")
        tokens[i, : len(ids)], segments[i, : len(ids)] = ids, 1
        where = (i, slice(len(ids))) if per_token else i
        wanted[where], mask[where] = label, 1.0
    return {"tokens": tokens, "segment_ids": segments, "labels": wanted, "loss_mask": mask}


@partial(jax.jit, static_argnums=0)
def scores(model: Model, params: Params, batch: Batch) -> Array:
    """What the head says of every text: [B] of a scalar, [B, n_labels] of labels; compiled once for each shape."""
    return model.classify(params, model.apply(params, batch), batch)


def accuracy(
    model: Model, params: Params, batches: Sequence[Mapping[str, np.ndarray]]
) -> tuple[float, list[np.ndarray]]:
    """Share of right labels over all batches, and the predicted labels of each."""
    score = jax.jit(lambda p, b: jnp.argmax(model.classify(p, model.apply(p, b), b), axis=-1))
    predicted = [np.asarray(score(params, dict(batch))) for batch in batches]
    right = sum(float(((p == b["labels"]) * b["loss_mask"]).sum()) for p, b in zip(predicted, batches, strict=True))
    return right / sum(float(b["loss_mask"].sum()) for b in batches), predicted
