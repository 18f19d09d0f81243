"""What follows from the wish that one answer be preferred to another.

P pairs
"""

import jax
import jax.numpy as jnp

from research.core.types import Array


def pairwise_log_sigmoid(
    first: Array, second: Array, *, preferred: Array | float = 1.0, mask: Array | None = None
) -> Array:
    """Bradley-Terry losses [P]:  −p log σ(first − second) − (1 − p) log σ(second − first).

    See *Rank Analysis of Incomplete Block Designs*, Bradley and Terry, 1952; *Training language models to follow
    instructions with human feedback*, https://arxiv.org/abs/2203.02155 (p = 1).

    Args:
      first, second: [P] scores. preferred: p, the share of judges that prefer the first; a tie is 0.5, at which equal
        scores have the least loss.
      mask: [P], 0 where there is no pair: the loss is 0 there, and so is its gradient, whatever the scores are.
    """
    difference = (first - second).astype(jnp.float32)
    if mask is not None:
        # Selected before the logarithm: a score that is not finite must not reach the gradient as 0 · NaN.
        difference = jnp.where(mask > 0, difference, 0.0)
    losses = -preferred * jax.nn.log_sigmoid(difference) - (1 - preferred) * jax.nn.log_sigmoid(-difference)
    return losses if mask is None else jnp.where(mask > 0, losses, 0.0)
