"""Losses of a policy that is rewarded, and of the value function beside it; advantages come from `advantages`.

B batch · T length · V vocabulary

Of `logprobs` [B, T], log π(token | what is before it), position t belongs to the token that is produced there, whose
`loss_mask` is 1. Advantages, returns, and what the policy said when it sampled are constants to every gradient.
"""

import jax
import jax.numpy as jnp

from research.core.types import Array
from research.objectives import require
from research.objectives.kl import LARGEST_LOG_RATIO, kl_estimate
from research.objectives.sums import Loss, counted, kept, summed


def clipped_policy(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    loss_mask: Array,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
) -> Loss:
    """PPO's policy loss: Σ −min( ρ A, clip(ρ, 1 − ε, 1 + ε') A ) over tokens,  ρ = exp(log π − log π_old).

    See *Proximal Policy Optimization Algorithms*, https://arxiv.org/abs/1707.06347; ε' > ε is clip-higher of *DAPO*,
    https://arxiv.org/abs/2503.14476.

    Args:
      logprobs, old_logprobs, loss_mask: [B, T]. advantages: [B, T], or [B] for all tokens of an answer.
      clip: ε. clip_high: ε'; ε if None.
    Metrics: `clip_fraction` (of tokens whose gradient is cut), `kl` to the policy that sampled (k3), `ratio`.

    Raises:
      ValueError: ε outside (0, 1), ε' not above 0, or arrays of other shapes.
    """
    losses, cut, ratio = _surrogate(logprobs, old_logprobs, advantages, loss_mask, clip, clip_high)
    metrics = {
        "clip_fraction": counted(cut, loss_mask),
        "kl": counted(kl_estimate(old_logprobs, logprobs, kind="k3", mask=loss_mask), loss_mask),
        "ratio": counted(ratio, loss_mask),
    }
    return summed(losses, loss_mask, metrics)


def clipped_value(
    values: Array, old_values: Array, returns: Array, loss_mask: Array, *, clip: float | None = 0.2
) -> Loss:
    """PPO's value loss: Σ ½ max( (V − G)², (V_old + clip(V − V_old, −ε, ε) − G)² ) over tokens.

    See *High-Dimensional Continuous Control Using Generalized Advantage Estimation* (V), the code of *Proximal Policy
    Optimization Algorithms* (clipping), https://arxiv.org/abs/1707.06347.

    Args:
      values, old_values, returns, loss_mask: [B, T]. clip: ε; None leaves the clipping out.
    Metrics: `clip_fraction`, `squared_error`.

    Raises:
      ValueError: ε not above 0, or arrays of other shapes.
    """
    require.same_shape(values=values, old_values=old_values, returns=returns, loss_mask=loss_mask)
    values = kept(values, loss_mask)
    old_values, returns = _constants(loss_mask, old_values, returns)
    squared = jnp.square(values - returns)
    losses, cut = squared, jnp.zeros_like(squared)
    if clip is not None:
        require.positive("clip", clip)
        near = jnp.square(old_values + jnp.clip(values - old_values, -clip, clip) - returns)
        losses, cut = jnp.maximum(squared, near), near > squared
    metrics = {"clip_fraction": counted(cut, loss_mask), "squared_error": counted(squared, loss_mask)}
    return summed(losses / 2, loss_mask, metrics)


def entropy(logits: Array, total: Array | None = None) -> Array:
    """−Σ_v π_v log π_v in nats, [...] for logits [..., V]; tokens that are forbidden (−∞) add nothing.

    total: log Σ_v exp(logits) [...] where it is there already: that saves a pass and an array of the logits' size.
    """
    logits = logits.astype(jnp.float32)
    total = jax.nn.logsumexp(logits, axis=-1) if total is None else total
    # Selected before the product: 0 · −∞ would be NaN, in the gradient too.
    possible = ~jnp.isneginf(logits)
    logprobs = kept(logits, possible) - total[..., None]
    return -jnp.sum(kept(jnp.exp(logprobs), possible) * logprobs, axis=-1)


def entropy_bonus(logits: Array, loss_mask: Array) -> Loss:
    """Σ −H(π_t) over tokens: added with a small factor, it keeps a policy from settling too early.

    See *Function Optimization using Connectionist Reinforcement Learning Algorithms*, Williams and Peng, 1991.

    Args:
      logits: [B, T, V]. loss_mask: [B, T].
    Metrics: `entropy`, in nats per token.
    """
    require.same_shape(logits=logits[..., 0], loss_mask=loss_mask)
    entropies = entropy(kept(logits, loss_mask[..., None]))
    return summed(-entropies, loss_mask, {"entropy": counted(entropies, loss_mask)})


def reinforce(logprobs: Array, advantages: Array, loss_mask: Array) -> Loss:
    """Σ −A log π(answer) over answers; its gradient is the policy gradient at the policy that sampled.

    See *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*, Williams, 1992;
    with `advantages.leave_one_out` it is RLOO.

    Args:
      logprobs, loss_mask: [B, T]. advantages: [B], or [B, T] of single tokens.
    Metrics: `logprob` of whole answers. The weight is the number of answers that have a token.
    """
    require.same_shape(logprobs=logprobs, loss_mask=loss_mask)
    logprobs = kept(logprobs, loss_mask)
    answers = jnp.any(loss_mask > 0, axis=-1)
    losses = -jnp.sum(_per_token(advantages, loss_mask) * logprobs, axis=-1)
    return summed(losses, answers, {"logprob": counted(jnp.sum(logprobs, axis=-1), answers)})


def grpo(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    loss_mask: Array,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
    reference: Array | None = None,
    kl_coefficient: Array | float = 0.0,
) -> Loss:
    """GRPO: Σ over answers of the mean over their tokens of −min( ρ A, clip(ρ, 1 − ε, 1 + ε') A ) + β k3.

    See *DeepSeekMath*, https://arxiv.org/abs/2402.03300, equation 3; k3 is `kl.kl_estimate` to the reference.

    Args:
      logprobs, old_logprobs, loss_mask: [B, T]. advantages: [B] from `advantages.group_advantages`.
      reference: [B, T] log-probabilities under the reference. kl_coefficient: β. clip, clip_high: see `clipped_policy`.
    Metrics: `clip_fraction`, `ratio`, and `kl` if there is a reference, of answers. The weight is the number of answers
      that have a token; for the mean over all tokens (as in DAPO) use `clipped_policy`.

    Raises:
      ValueError: as `clipped_policy`; β below 0, or above 0 without a reference.
    """
    require.not_negative("kl_coefficient", kl_coefficient)
    if reference is None and not (isinstance(kl_coefficient, int | float) and kl_coefficient == 0):
        raise ValueError(f"kl_coefficient {kl_coefficient} needs the reference's log-probabilities; none were given")
    losses, cut, ratio = _surrogate(logprobs, old_logprobs, advantages, loss_mask, clip, clip_high)
    answers = jnp.any(loss_mask > 0, axis=-1)

    def mean(x: Array) -> Array:
        return jnp.sum(kept(x, loss_mask), axis=-1) / jnp.maximum(jnp.sum(loss_mask > 0, axis=-1), 1)

    metrics = {"clip_fraction": counted(mean(cut), answers), "ratio": counted(mean(ratio), answers)}
    if reference is not None:
        kl = kl_estimate(logprobs, jax.lax.stop_gradient(reference), kind="k3", mask=loss_mask)
        losses += kl_coefficient * kl
        metrics["kl"] = counted(mean(kl), answers)
    return summed(mean(losses), answers, metrics)


def explained_variance(values: Array, returns: Array, loss_mask: Array) -> Array:
    """1 − Var(G − V) / Var(G) over tokens: 1 for a perfect value function, 0 for a constant; 0 if all G are equal."""
    on = loss_mask > 0
    count = jnp.maximum(jnp.sum(on), 1)

    def variance(x: Array) -> Array:
        return jnp.sum(jnp.square(kept(x - jnp.sum(x) / count, on))) / count

    values, returns = kept(values, on), kept(returns, on)
    whole = variance(returns)
    return jnp.where(whole > 0, 1 - variance(returns - values) / jnp.where(whole > 0, whole, 1.0), 0.0)


def _surrogate(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    loss_mask: Array,
    clip: float,
    clip_high: float | None,
) -> tuple[Array, Array, Array]:
    """The clipped surrogate [B, T], where it cuts the gradient, and the ratio."""
    require.within("clip", clip)
    high = clip if clip_high is None else clip_high
    require.positive("clip_high", high)
    require.same_shape(logprobs=logprobs, old_logprobs=old_logprobs, loss_mask=loss_mask)
    (old,) = _constants(loss_mask, old_logprobs)
    advantages = _per_token(advantages, loss_mask)
    ratio = jnp.exp(jnp.minimum(kept(logprobs, loss_mask) - old, LARGEST_LOG_RATIO))
    plain, clipped = ratio * advantages, jnp.clip(ratio, 1 - clip, 1 + high) * advantages
    cut = ((ratio > 1 + high) & (advantages > 0)) | ((ratio < 1 - clip) & (advantages < 0))
    return -jnp.minimum(plain, clipped), cut, ratio


def _constants(loss_mask: Array, *arrays: Array) -> tuple[Array, ...]:
    return tuple(jax.lax.stop_gradient(kept(array, loss_mask)) for array in arrays)


def _per_token(advantages: Array, loss_mask: Array) -> Array:
    """Advantages [B, T], of tokens or of the answers that they belong to."""
    if advantages.shape not in (loss_mask.shape, loss_mask.shape[:-1]):
        raise ValueError(
            f"advantages must be of answers {loss_mask.shape[:-1]} or of tokens {loss_mask.shape}; "
            f"given {advantages.shape}"
        )
    each = advantages[..., None] if advantages.ndim < loss_mask.ndim else advantages
    return _constants(loss_mask, jnp.broadcast_to(each, loss_mask.shape))[0]
