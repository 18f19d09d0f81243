"""A student that is to say what a teacher says: its probabilities, its hidden states, where it attends.

B batch · T query length · S key length · V vocabulary or labels · K stored · D widths · N heads

Nothing is differentiated through what the teacher gives. What a mask leaves out, NaN too, adds exactly nothing.
"""

import math

import jax
import jax.numpy as jnp

from research.core.names import meant
from research.core.types import Array
from research.objectives import require
from research.objectives.sums import Loss, counted, kept, summed

HEADS = ("each", "mean")
# An attention weight that underflows to 0 must not make the loss infinite.
_SMALLEST = 1e-30


def divergence(student: Array, teacher: Array, *, temperature: float = 1.0, beta: float = 0.0) -> Array:
    """τ² D(p ‖ q) with p = softmax(teacher / τ), q = softmax(student / τ):

        β = 0   KL(p ‖ q) = Σ p log(p / q), forward: the student covers what the teacher says
        β = 1   KL(q ‖ p), reverse: it says nothing that the teacher would not
        else    β KL(p ‖ m) + (1 − β) KL(q ‖ m) with m = β p + (1 − β) q, the generalised Jensen-Shannon divergence

    τ² keeps the size of the gradients: *Distilling the Knowledge in a Neural Network*,
    https://arxiv.org/abs/1503.02531. Between 0 and 1: *On-Policy Distillation of Language Models* (GKD),
    https://arxiv.org/abs/2306.13649, which is not scaled, so it goes to 0 at both ends instead of to the two KLs.

    Args:
      student, teacher: [..., V] logits or log-probabilities; −inf where something cannot be.
    Returns: [...] float32, in nats, 0 where both say the same.

    Raises:
      ValueError: τ not above 0, β outside [0, 1], or other shapes.
    """
    require.positive("temperature", temperature)
    require.share("beta", beta)
    require.same_shape(student=student, teacher=teacher)
    log_q = jax.nn.log_softmax(jnp.asarray(student, jnp.float32) / temperature)
    log_p = jax.nn.log_softmax(jax.lax.stop_gradient(jnp.asarray(teacher, jnp.float32)) / temperature)
    if beta == 0:
        found = _kl(log_p, log_q)
    elif beta == 1:
        found = _kl(log_q, log_p)
    else:
        mixture = jnp.logaddexp(log_p + jnp.log(beta), log_q + jnp.log1p(-beta))
        found = beta * _kl(log_p, mixture) + (1 - beta) * _kl(log_q, mixture)
    return temperature**2 * found


def _kl(log_p: Array, log_q: Array) -> Array:
    """Σ p (log p − log q) over the last axis, in which 0 log 0 is 0, and so is its gradient."""
    on = log_p > -jnp.inf
    return jnp.sum(jnp.exp(log_p) * (jnp.where(on, log_p, 0) - jnp.where(on, log_q, 0)), axis=-1)


def topk_divergence(
    student: Array, indices: Array, logprobs: Array, *, temperature: float = 1.0, beta: float = 0.0
) -> Array:
    """`divergence` from the K most probable tokens that were stored of the teacher, τ² D over K + 1 events.

    The events are the K tokens and "any other": p = (p_1, ..., p_K, 1 − Σ p_k), q likewise from the student's softmax
    over all V, at temperature 1. Both are then softened over these events, p_e^(1/τ) / Σ p_e^(1/τ), so with τ other
    than 1 this is not the softened softmax over V with events put together. With K = V there is no other event and the
    result is `divergence`; otherwise, at τ = 1, it is never above it. What rounding leaves of 1 − Σ p_k, about 1e-7, is
    the least that a stored teacher knows of the rest.

    Args:
      student: [..., V] logits. indices, logprobs: [..., K], each index once, log-probabilities at temperature 1.
    Returns: [...] float32.

    Raises:
      ValueError: as `divergence`, indices and log-probabilities of other shapes, or K above V.
    """
    V, K = student.shape[-1], indices.shape[-1]
    require.same_shape(indices=indices, logprobs=logprobs)
    require.same_shape(positions=student[..., 0], stored=indices[..., 0])
    if K > V:
        raise ValueError(f"{K} stored tokens of a teacher for a student that has only {V}")
    student, logprobs = jnp.asarray(student, jnp.float32), jnp.asarray(logprobs, jnp.float32)
    log_q = jnp.take_along_axis(student, indices, axis=-1)
    if K < V:
        # The sum over the others and not 1 − Σ q_k: where little is left that would be rounding, and its gradient huge.
        others = jnp.put_along_axis(student, indices, -jnp.inf, axis=-1, inplace=False)
        log_q = jnp.concatenate([log_q, jax.nn.logsumexp(others, axis=-1, keepdims=True)], axis=-1)
        rest = jnp.maximum(1 - jnp.sum(jnp.exp(logprobs), axis=-1, keepdims=True), 0)
        logprobs = jnp.concatenate([logprobs, jnp.log(rest)], axis=-1)
    # These logarithms of q are short of one constant, the student's normalizer, which softening them takes away.
    return divergence(log_q, logprobs, temperature=temperature, beta=beta)


def distillation(
    student: Array, teacher: Array, loss_mask: Array, *, temperature: float = 1.0, beta: float = 0.0
) -> Loss:
    """Σ mask · `divergence` over positions.

    Args:
      student, teacher: [..., V] logits. loss_mask: [...].
    Metrics: `agreement`, the share of positions at which both have the same first choice.

    Raises:
      ValueError: as `divergence`, or a mask of another shape.
    """
    require.same_shape(student=student, teacher=teacher)
    require.same_shape(positions=student[..., 0], loss_mask=loss_mask)
    student, teacher = kept(student, loss_mask[..., None]), kept(teacher, loss_mask[..., None])
    losses = divergence(student, teacher, temperature=temperature, beta=beta)
    same = jnp.argmax(student, axis=-1) == jnp.argmax(teacher, axis=-1)
    return summed(losses, loss_mask, {"agreement": counted(same, loss_mask)})


def topk_distillation(
    student: Array, indices: Array, logprobs: Array, loss_mask: Array, *, temperature: float = 1.0, beta: float = 0.0
) -> Loss:
    """Σ mask · `topk_divergence` over positions; the rest as in `distillation`."""
    require.same_shape(positions=student[..., 0], loss_mask=loss_mask)
    student, indices, logprobs = masked_teacher(student, indices, logprobs, loss_mask)
    losses = topk_divergence(student, indices, logprobs, temperature=temperature, beta=beta)
    first = jnp.take_along_axis(indices, jnp.argmax(logprobs, axis=-1)[..., None], axis=-1)[..., 0]
    same = jnp.argmax(student, axis=-1) == first
    return summed(losses, loss_mask, {"agreement": counted(same, loss_mask)})


def masked_teacher(student: Array, indices: Array, logprobs: Array, loss_mask: Array) -> tuple[Array, Array, Array]:
    """Logits and what was stored, with harmless numbers where the mask is 0."""
    on = loss_mask[..., None]
    K = indices.shape[-1]
    indices = jnp.where(on > 0, indices, jnp.arange(K))
    return kept(student, on), indices, kept(logprobs, on, -math.log(K + 1))


def hidden_matching(student: Array, teacher: Array, loss_mask: Array, *, projection: Array | None = None) -> Loss:
    """Σ mask · mean over D of (student W − teacher)² over positions.

    See *TinyBERT*, https://arxiv.org/abs/1909.10351, equation 8, W learned where the widths differ.

    Args:
      student: [..., D_student]. teacher: [..., D]. loss_mask: [...]. projection: W [D_student, D]; None: the identity.

    Raises:
      ValueError: widths that differ and no projection, or a projection or mask that does not fit.
    """
    require.same_shape(positions=student[..., 0], teacher=teacher[..., 0], loss_mask=loss_mask)
    widths = (student.shape[-1], teacher.shape[-1])
    if projection is None and widths[0] != widths[1]:
        raise ValueError(f"hidden states of widths {widths} (student, teacher) need a projection; none was given")
    if projection is not None and projection.shape != widths:
        raise ValueError(f"a projection of shape {projection.shape} does not map width {widths[0]} to {widths[1]}")
    student, teacher = kept(student, loss_mask[..., None]), kept(teacher, loss_mask[..., None])
    if projection is not None:
        student = student @ projection.astype(jnp.float32)
    losses = jnp.mean(jnp.square(student - jax.lax.stop_gradient(teacher)), axis=-1)
    return summed(losses, loss_mask, {})


def attention_matching(student: Array, teacher: Array, loss_mask: Array, *, heads: str = "each") -> Loss:
    """Σ mask · KL(teacher's ‖ student's attention) over queries, the mean over heads.

    See *MiniLM*, https://arxiv.org/abs/2002.10957, equation 3 (its last layer, head by head).

    Args:
      student, teacher: [B, N, T, S] attention weights, rows that sum to 1. loss_mask: [B, T] of queries.
      heads: "each", one head of the student for one of the teacher, or "mean", the mean of all heads on either side,
        which is what can be compared where their numbers differ.

    Raises:
      ValueError: other heads, numbers of heads that differ with "each", or maps of other positions.
    """
    if heads not in HEADS:
        raise ValueError(f"unknown heads {heads!r}{meant(heads, HEADS)}; have {list(HEADS)}")
    require.same_shape(student=student[:, 0], teacher=teacher[:, 0])
    require.same_shape(queries=student[:, 0, :, 0], loss_mask=loss_mask)
    on = loss_mask[:, None, :, None]
    student, teacher = kept(student, on, 1.0), kept(jax.lax.stop_gradient(teacher), on, 1.0)
    if heads == "mean":
        student, teacher = (jnp.mean(maps, axis=1, keepdims=True) for maps in (student, teacher))
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"the student has {student.shape[1]} heads and the teacher {teacher.shape[1]}; compare their means "
            "(heads='mean')"
        )
    logs = [jnp.log(jnp.maximum(maps, _SMALLEST)) for maps in (teacher, student)]
    losses = jnp.sum(teacher * (logs[0] - logs[1]), axis=-1)
    return summed(jnp.mean(losses, axis=1), loss_mask, {})
