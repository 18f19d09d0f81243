"""Losses of preference without a reference: how likely an answer is per token stands for how good it is.

P pairs
"""

import math

import jax.numpy as jnp

from research.core.types import Array
from research.objectives import require
from research.objectives.preference import agreement, pairwise_log_sigmoid
from research.objectives.sums import Loss, counted, kept, summed


def simpo(
    policy: Array,
    lengths: Array,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
    preferred: Array | float = 1.0,
    mask: Array | None = None,
) -> Loss:
    """Σ −log σ( β log π(y_chosen)/|y_chosen| − β log π(y_rejected)/|y_rejected| − γ ).

    See *SimPO: Simple Preference Optimization with a Reference-Free Reward*, https://arxiv.org/abs/2405.14734.

    Args:
      policy, lengths: [P, 2] from `preference.sequence_logprobs`, the chosen one first.
      gamma: by how much the chosen reward is to be higher.
      preferred: how sure it is that the chosen one is better, as in `preference.dpo`. mask: [P], 0 where no pair is.
    Metrics: `accuracy`, `margin`, `reward_chosen`, `reward_rejected` of the rewards β log π(y)/|y|.

    Raises:
      ValueError: β not above 0, γ below 0, or arrays of other shapes.
    """
    require.positive("beta", beta)
    require.not_negative("gamma", gamma)
    rewards = beta * _per_token(policy, lengths, mask)
    losses = pairwise_log_sigmoid(*rewards.T, preferred=preferred, margin=gamma, mask=mask)
    chosen, rejected = rewards.T
    metrics = {"reward_chosen": counted(chosen, mask), "reward_rejected": counted(rejected, mask)}
    return summed(losses, mask, agreement(chosen - rejected, preferred, mask) | metrics)


def orpo(
    policy: Array,
    lengths: Array,
    *,
    weight: float = 0.1,
    preferred: Array | float = 1.0,
    mask: Array | None = None,
) -> Loss:
    """Σ −ℓ_chosen − λ log σ( log odds(y_chosen) − log odds(y_rejected) ),  ℓ = log π(y)/|y|, odds = e^ℓ / (1 − e^ℓ).

    Odds ratio preference optimization learns the chosen answer and the preference at once. See *ORPO: Monolithic
    Preference Optimization without Reference Model*, https://arxiv.org/abs/2403.07691. The first term is a mean per
    answer, as in the paper; `trl` takes the mean over all tokens of the batch, the prompt's among them.

    Args:
      policy, lengths: [P, 2] from `preference.sequence_logprobs`, the chosen one first.
      weight: λ.
      preferred: p; 1 − p of the loss is that with the answers exchanged. mask: [P], 0 where there is no pair.
    Metrics: `accuracy` and `margin` of ℓ, `nll` (−ℓ_chosen), `log_odds`.

    Raises:
      ValueError: λ not above 0, or arrays of other shapes.
    """
    require.positive("weight", weight)
    means = _per_token(policy, lengths, mask)
    # A certain answer has infinite odds: it counts as one of probability 1 − 1e-6.
    means = jnp.minimum(means, -1e-6)
    log_odds = means - _log_one_minus_exp(means)
    ratio, p = log_odds[:, 0] - log_odds[:, 1], kept(preferred, mask)
    nll = -p * means[:, 0] - (1 - p) * means[:, 1]
    losses = nll + weight * pairwise_log_sigmoid(*log_odds.T, preferred=preferred, mask=mask)
    metrics = {"nll": counted(nll, mask), "log_odds": counted(ratio, mask)}
    return summed(losses, mask, agreement(means[:, 0] - means[:, 1], preferred, mask) | metrics)


def _per_token(policy: Array, lengths: Array, mask: Array | None) -> Array:
    """log π(y)/|y|, [P, 2] float32, −1 where there is no pair."""
    require.pairs("policy", policy, mask)
    require.same_shape(policy=policy, lengths=lengths)
    both = None if mask is None else mask[:, None]
    return kept(policy, both, -1.0) / jnp.maximum(kept(lengths, both, 1.0), 1.0)


def _log_one_minus_exp(x: Array) -> Array:
    """log(1 − eˣ) for x < 0, without cancellation: *Accurately Computing log(1 − exp(−|a|))*, Mächler, 2012."""
    near = x > -math.log(2)
    # Each branch sees only its own arguments, or the gradient of the other one would be 0 · ∞.
    return jnp.where(near, jnp.log(-jnp.expm1(jnp.where(near, x, -0.5))), jnp.log1p(-jnp.exp(jnp.where(near, -1.0, x))))
