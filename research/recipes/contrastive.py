"""Two towers of one model: questions and the passages that answer them become vectors that point the same way.

P pairs · T length · H hard negatives · D width
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core.names import meant
from research.core.types import Array, Batch, Params
from research.data.packing import pad_batch
from research.models import Model
from research.objectives import Loss, info_nce, require
from research.ops.pooling import MODES, pool

QUERY = "query_"


def contrastive_loss(
    model: Model, *, pooling: str = "mean", temperature: float = 0.05, symmetric: bool = True
) -> Callable[[Params, Batch, Array | None], Loss]:
    """Σ over pairs of `objectives.info_nce` of pooled states; the negatives are the batch's (of one micro-batch).

    The batch holds a query's inputs as `query_tokens` and `query_segment_ids` [P, T], those of its passage and of its
    hard negatives as `tokens` and `segment_ids` [P, 1 + H, T], `loss_mask` [P], and it may hold `groups` [P]. An empty
    row is no negative. See *Sentence-BERT*, https://arxiv.org/abs/1908.10084.

    Raises:
      ValueError: an encoder-decoder, an unknown pooling, or a temperature not above 0.
    """
    if model.config.kind == "encoder_decoder":
        raise ValueError("texts become vectors by an encoder or a decoder; this model is an encoder-decoder")
    if pooling not in MODES:
        raise ValueError(f"unknown pooling {pooling!r}{meant(pooling, MODES)}; have {list(MODES)}")
    require.positive("temperature", temperature)

    def vectors(params: Params, batch: Batch, rng: Array | None) -> Array:
        return pool(model.apply(params, batch, rng=rng).hidden, batch["segment_ids"], pooling)

    def loss_fn(params: Params, batch: Batch, rng: Array | None) -> Loss:
        keys = (None, None) if rng is None else jax.random.split(rng)
        names = ("tokens", "segment_ids")
        queries = vectors(params, {name: batch[QUERY + name] for name in names}, keys[0])
        P, texts = batch["tokens"].shape[:2]
        flat = {name: batch[name].reshape(P * texts, -1) for name in names}
        passages = vectors(params, flat, keys[1]).reshape(P, texts, -1)
        hard: dict[str, Any] = {}
        if texts > 1:
            there = jnp.any(batch["segment_ids"][:, 1:] > 0, axis=-1)
            hard = {"negatives": passages[:, 1:], "negative_mask": there}
        return info_nce(
            queries,
            passages[:, 0],
            temperature=temperature,
            symmetric=symmetric,
            mask=batch["loss_mask"],
            groups=batch.get("groups"),
            **hard,
        )

    return loss_fn


def pair_batch(
    queries: Sequence[Sequence[int]],
    passages: Sequence[Sequence[Sequence[int]]],
    lengths: tuple[int, int],
    *,
    groups: Sequence[int] | None = None,
) -> dict[str, np.ndarray]:
    """A batch of `contrastive_loss`: token ids of queries, and of each one's passage with its hard negatives behind it.

    Args:
      lengths: of the rows of queries and of passages; what is longer is cut off.
      groups: see `objectives.info_nce`.

    Raises:
      ValueError: no pairs, a query without a passage, or a text without tokens; names the pair.
    """
    if not queries or len(queries) != len(passages):
        raise ValueError(f"{len(queries)} queries but {len(passages)} lists of passages")
    for i, (query, own) in enumerate(zip(queries, passages, strict=True)):
        if not query or not own or not own[0]:
            raise ValueError(f"pair {i} needs a query and a passage with tokens")
    most = max(len(own) for own in passages)
    rows = [row[: lengths[1]] for own in passages for row in [*own, *[[]] * (most - len(own))]]
    asked = pad_batch([query[: lengths[0]] for query in queries], lengths[0])
    found = pad_batch(rows, lengths[1])
    batch = {QUERY + name: asked[name] for name in ("tokens", "segment_ids")}
    batch |= {name: found[name].reshape(len(queries), most, -1) for name in ("tokens", "segment_ids")}
    batch["loss_mask"] = np.ones(len(queries), np.float32)
    if groups is not None:
        batch["groups"] = np.asarray(groups, np.int32)
    return batch
