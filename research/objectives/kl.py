"""How far a policy has moved from its reference, judged by what it sampled, and how hard to hold it back.

B batch · T length
"""

import jax.numpy as jnp

from research.core.names import meant
from research.core.types import Array
from research.objectives import require
from research.objectives.sums import kept

ESTIMATORS = ("k1", "k2", "k3")
# Of a sampled token ratios beyond e^60 say only that something is wrong; beyond e^88 they would be inf, and then NaN.
LARGEST_LOG_RATIO = 60.0


def kl_estimate(logprobs: Array, reference: Array, *, kind: str = "k1", mask: Array | None = None) -> Array:
    """Estimates of KL(π ‖ π_ref) from tokens sampled from π, with log ρ = log π − log π_ref:

        k1 = log ρ,   k2 = (log ρ)² / 2,   k3 = 1/ρ − 1 + log ρ

    k1 and k3 are unbiased; k3 is never negative and varies less; k2 is biased, but its gradient is that of the KL in
    expectation, which those of k1 (0) and k3 are not. See *Approximating KL Divergence*, Schulman, 2020,
    http://joschu.net/blog/kl-approx.html.

    Args:
      logprobs, reference: [...] log-probabilities of the sampled tokens. kind: "k1", "k2" or "k3".
      mask: [...], 0 where there is no token: the estimate is 0 there, and so is its gradient.
    Returns: [...] float32.

    Raises:
      ValueError: another kind, or arrays of other shapes.
    """
    if kind not in ESTIMATORS:
        raise ValueError(f"unknown KL estimator {kind!r}{meant(kind, ESTIMATORS)}; have {list(ESTIMATORS)}")
    require.same_shape(logprobs=logprobs, reference=reference, mask=mask)
    log_ratio = kept(logprobs, mask) - kept(reference, mask)
    if kind == "k1":
        return log_ratio
    if kind == "k2":
        return jnp.square(log_ratio) / 2
    return jnp.expm1(jnp.minimum(-log_ratio, LARGEST_LOG_RATIO)) + log_ratio


def fixed_kl(coefficient: Array | float, kl: Array | float) -> Array | float:
    """The KL coefficient as it was, whatever the KL is."""
    del kl
    return coefficient


def adaptive_kl(
    coefficient: Array | float, kl: Array | float, *, target: float, gain: float = 0.1, clip: float = 0.2
) -> Array:
    """The KL coefficient that steers towards a target:  β ← β (1 + K clip(KL / target − 1, −c, c)).

    See *Fine-Tuning Language Models from Human Preferences*, https://arxiv.org/abs/1909.08593, section 2.2 (K = 0.1,
    c = 0.2). Where a "horizon" is given instead, as in `trl`, K is the number of samples since the last call over it.

    Args:
      coefficient: β. kl: the KL of whole answers to the reference, in nats, as measured since the last call.

    Raises:
      ValueError: a target, gain or clip that is not above 0.
    """
    for name, value in (("target", target), ("gain", gain), ("clip", clip)):
        require.positive(name, value)
    return coefficient * (1 + gain * jnp.clip(jnp.asarray(kl, jnp.float32) / target - 1, -clip, clip))
