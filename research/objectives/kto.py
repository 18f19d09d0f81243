"""Preference without pairs: answers of which each is just good or bad.

B rows
"""

import jax
import jax.numpy as jnp

from research.core.types import Array
from research.objectives import require
from research.objectives.sums import Loss, counted, kept, summed


def kto_baseline(policy: Array, reference: Array, *, mask: Array | None = None) -> tuple[Array, Array]:
    """(Σ log π(y'|x) − log π_ref(y'|x), count): what z₀ of `kto` is made of, with y' the answer to another prompt.

    Args:
      policy, reference: [B] log-probabilities of the mismatched answers. mask: [B].
    Returns: two scalars without a gradient, to be added up over devices and divided.
    """
    require.same_shape(policy=policy, reference=reference, mask=mask)
    return jax.lax.stop_gradient(counted(kept(policy, mask) - kept(reference, mask), mask))


def kto(
    policy: Array,
    reference: Array,
    desirable: Array,
    baseline: Array | float,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    mask: Array | None = None,
) -> Loss:
    """Kahneman-Tversky optimization: Σ λ_D (1 − σ(β (r − z₀))) over good answers + λ_U (1 − σ(β (z₀ − r))) over bad.

    r = log π(y | x) − log π_ref(y | x), z₀ = max(0, KL(π ‖ π_ref)) over the whole batch. See *KTO: Model Alignment as
    Prospect Theoretic Optimization*, https://arxiv.org/abs/2402.01306.

    Args:
      policy, reference: [B] log-probabilities of whole answers.
      desirable: [B], whether the answer is good.
      baseline: the mean of `kto_baseline`, one number for all devices; 0 leaves it out.
      desirable_weight, undesirable_weight: λ_D, λ_U; the paper balances λ_D n_D / (λ_U n_U) within 1 .. 4/3.
      mask: [B], 0 where there is no row.
    Metrics: `accuracy` (how often r is above z₀ for a good answer, below for a bad one), `reward_chosen` and
      `reward_rejected` (β r of good and of bad answers), `kl` (z₀).

    Raises:
      ValueError: β or a weight not above 0, or arrays of other shapes.
    """
    for name, value in (("beta", beta), ("desirable_weight", desirable_weight)):
        require.positive(name, value)
    require.positive("undesirable_weight", undesirable_weight)
    require.same_shape(policy=policy, reference=reference, desirable=desirable, mask=mask)
    ratios = kept(policy, mask) - jax.lax.stop_gradient(kept(reference, mask))
    baseline = jnp.maximum(jax.lax.stop_gradient(jnp.asarray(baseline, jnp.float32)), 0.0)
    good = desirable.astype(bool)
    sign = jnp.where(good, 1.0, -1.0)
    weights = jnp.where(good, desirable_weight, undesirable_weight)
    losses = weights * jax.nn.sigmoid(-beta * sign * (ratios - baseline))
    on = jnp.ones(ratios.shape, jnp.float32) if mask is None else mask
    metrics = {
        "accuracy": counted(sign * (ratios - baseline) > 0, on),
        "reward_chosen": counted(beta * ratios, on * good),
        "reward_rejected": counted(beta * ratios, on * ~good),
        "kl": counted(jnp.broadcast_to(baseline, ratios.shape), on),
    }
    return summed(losses, on, metrics)
