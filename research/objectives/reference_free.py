"""Losses of preference without a reference: how likely an answer is per token stands for how good it is.

P pairs
"""

import math

import jax
import jax.numpy as jnp

from research.core.types import Array
from research.objectives import require
from research.objectives.preference import pairwise_log_sigmoid
from research.objectives.sums import Loss, counted, kept, summed


def simpo(policy: Array, lengths: Array, *, beta: float = 2.0, gamma: float = 1.0, mask: Array | None = None) -> Loss:
    """Σ −log σ( β log π(y_chosen)/|y_chosen| − β log π(y_rejected)/|y_rejected| − γ ).

    See *SimPO: Simple Preference Optimization with a Reference-Free Reward*, https://arxiv.org/abs/2405.14734.

    Args:
      policy, lengths: [P, 2] from `preference.sequence_logprobs`, the chosen one first.
      gamma: by how much the chosen reward is to be higher. mask: [P], 0 where there is no pair.
    Metrics: `accuracy`, `margin`, `reward_chosen`, `reward_rejected` of the rewards β log π(y)/|y|.

    Raises:
      ValueError: β not above 0, γ below 0, or arrays of other shapes.
    """
    require.positive("beta", beta)
    require.not_negative("gamma", gamma)
    rewards = beta * _per_token(policy, lengths, mask)
    losses = pairwise_log_sigmoid(*rewards.T, margin=gamma, mask=mask)
    return summed(losses, mask, _metrics(rewards, mask))


def orpo(policy: Array, lengths: Array, *, weight: float = 0.1, mask: Array | None = None) -> Loss:
    """Σ −ℓ_chosen − λ log σ( log odds(y_chosen) − log odds(y_rejected) ),  ℓ = log π(y)/|y|, odds = e^ℓ / (1 − e^ℓ).

    Odds ratio preference optimization learns the chosen answer and the preference at once. See *ORPO: Monolithic
    Preference Optimization without Reference Model*, https://arxiv.org/abs/2403.07691. The first term is a mean per
    answer, as in the paper; `trl` takes the mean over all tokens of the batch, the prompt's among them.

    Args:
      policy, lengths: [P, 2] from `preference.sequence_logprobs`, the chosen one first.
      weight: λ. mask: [P], 0 where there is no pair.
    Metrics: `accuracy` and `margin` of ℓ, `nll` (−ℓ_chosen), `log_odds`.

    Raises:
      ValueError: λ not above 0, or arrays of other shapes.
    """
    require.positive("weight", weight)
    means = _per_token(policy, lengths, mask)
    # A certain answer has infinite odds: it counts as one of probability 1 − 1e-6.
    means = jnp.minimum(means, -1e-6)
    log_odds = means - _log_one_minus_exp(means)
    ratio = log_odds[:, 0] - log_odds[:, 1]
    losses = -means[:, 0] - weight * jax.nn.log_sigmoid(ratio)
    found = _metrics(means, mask)
    metrics = {
        "accuracy": found["accuracy"],
        "margin": found["margin"],
        "nll": counted(-means[:, 0], mask),
        "log_odds": counted(ratio, mask),
    }
    return summed(losses, mask, metrics)


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


def _metrics(rewards: Array, mask: Array | None) -> dict[str, tuple[Array, Array]]:
    chosen, rejected = rewards.T
    return {
        "accuracy": counted(chosen > rejected, mask),
        "margin": counted(chosen - rejected, mask),
        "reward_chosen": counted(chosen, mask),
        "reward_rejected": counted(rejected, mask),
    }
