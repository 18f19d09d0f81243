"""Learning to tell pairs apart: a query's own passage against all others of the batch.

P pairs · D width · H hard negatives of a query · M passages of all devices
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core.types import Array
from research.objectives import require
from research.objectives.sums import Loss, counted, kept, summed

# Far below any cosine over a temperature, so that it adds nothing to a sum of exponentials, and finite.
LOW = -1e30


def info_nce(
    queries: Array,
    passages: Array,
    *,
    temperature: float = 0.05,
    symmetric: bool = False,
    mask: Array | None = None,
    groups: Array | None = None,
    negatives: Array | None = None,
    negative_mask: Array | None = None,
    axis_name: str | None = None,
) -> Loss:
    """InfoNCE with negatives from the batch: Σ_i −log( exp(s_ii / τ) / Σ_j exp(s_ij / τ) ),  s_ij = cos(q_i, p_j).

    See *Representation Learning with Contrastive Predictive Coding*, https://arxiv.org/abs/1807.03748; with cosines and
    a temperature *A Simple Framework for Contrastive Learning of Visual Representations* (SimCLR),
    https://arxiv.org/abs/2002.05709; of sentences *Sentence-BERT*, https://arxiv.org/abs/1908.10084.

    Args:
      queries, passages: [P, D], of any length above 0; row i of one belongs to row i of the other.
      temperature: τ. symmetric: the mean with the loss of finding a passage's query among all queries.
      mask: [P], 0 where there is no pair; such a passage is nobody's negative.
      groups: [P] integers; the passage of another pair of the same group is no negative (duplicates, several right
        answers).
      negatives: [P, H, D] passages that are wrong for every query, though hard to tell. negative_mask: [P, H], 0 where
        there is none.
      axis_name: of the devices that hold the other rows of the batch, in `shard_map` or `pmap`: their passages count
        as negatives too, and the gradient reaches them.
    Metrics: `accuracy`, the share of queries whose own passage is the nearest.

    Raises:
      ValueError: τ not above 0, arrays of other shapes, or a mask of negatives that are not given.
    """
    require.positive("temperature", temperature)
    _shapes(queries, passages, mask, groups, negatives, negative_mask)
    q, p = _unit(queries, mask), _unit(passages, mask)
    P = q.shape[0]
    on = jnp.ones(P, bool) if mask is None else mask > 0
    if axis_name is None:
        together, own = (lambda x: x), jnp.arange(P)
    else:
        together = lambda x: jax.lax.all_gather(x, axis_name, tiled=True)  # noqa: E731
        own = jnp.arange(P) + P * jax.lax.axis_index(axis_name)
    groups = own if groups is None else groups
    every = together(on)
    counts = (own[:, None] == jnp.arange(len(every))) | (every & (groups[:, None] != together(groups)))
    candidates, wanted = together(p), counts
    if negatives is not None:
        there = on[:, None] & (True if negative_mask is None else negative_mask > 0)
        there = jnp.broadcast_to(there, negatives.shape[:2])
        hard = together(_unit(negatives, there).reshape(-1, q.shape[1]))
        candidates = jnp.concatenate([candidates, hard])
        more = jnp.broadcast_to(together(there.reshape(-1)), (P, len(hard)))
        wanted = jnp.concatenate([counts, more], axis=1)
    losses, right = _told_apart(q, candidates, own, wanted, temperature)
    if symmetric:
        losses = (losses + _told_apart(p, together(q), own, counts, temperature)[0]) / 2
    return summed(losses, mask, {"accuracy": counted(right, mask)})


def _told_apart(
    anchors: Array, candidates: Array, own: Array, counts: Array, temperature: float
) -> tuple[Array, Array]:
    """−log softmax of an anchor's own candidate among those that count [P, M], and whether it is the nearest; [P]."""
    cosines = jnp.matmul(anchors, candidates.T, precision="highest") / temperature
    cosines = jnp.where(counts, cosines, LOW)
    mine = jnp.take_along_axis(cosines, own[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(cosines, axis=1) - mine, mine >= jnp.max(cosines, axis=1)


def _unit(x: Array, mask: Array | None) -> Array:
    """Rows of length 1 in float32; what is masked, and a row of zeros, becomes zeros."""
    x = kept(x, None if mask is None else mask[..., None])
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def _shapes(queries: Array, passages: Array, mask: Any, groups: Any, negatives: Any, negative_mask: Any) -> None:
    require.same_shape(queries=queries, passages=passages)
    shape = np.shape(queries)
    if len(shape) != 2:
        raise ValueError(f"queries and passages must be vectors, [P, D]; given {shape}")
    for name, given in (("mask", mask), ("groups", groups)):
        if given is not None and np.shape(given) != shape[:1]:
            raise ValueError(f"the {name} of {shape[0]} pairs must have the shape {shape[:1]}, given {np.shape(given)}")
    if negatives is None:
        if negative_mask is not None:
            raise ValueError("a mask of negatives was given without negatives")
        return
    hard = np.shape(negatives)
    if len(hard) != 3 or (hard[0], hard[2]) != shape:
        raise ValueError(f"negatives must be [{shape[0]}, H, {shape[1]}], the hard ones of each query; given {hard}")
    if negative_mask is not None and np.shape(negative_mask) != hard[:2]:
        raise ValueError(f"the mask of negatives must have the shape {hard[:2]}, given {np.shape(negative_mask)}")
