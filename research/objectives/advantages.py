"""How much better than expected what was done turned out to be: what the losses of `policy` are given.

B batch · T length · R answers to one prompt

Positions that `loss_mask` leaves out do not exist for any of these: the step before them is followed by the step behind
them, so that padding on either side, and what tools say in the middle, changes nothing.
"""

import jax
import jax.numpy as jnp

from research.core.types import Array
from research.objectives import require
from research.objectives.kl import kl_estimate
from research.objectives.sums import kept


def token_rewards(
    scores: Array,
    logprobs: Array,
    reference: Array,
    loss_mask: Array,
    *,
    kl_coefficient: Array | float,
    kind: str = "k1",
) -> Array:
    """Rewards of tokens: −β KL_t at each, and the score of the whole answer at the last one.

    See *Fine-Tuning Language Models from Human Preferences*, https://arxiv.org/abs/1909.08593, equation 2.

    Args:
      scores: [B]. logprobs, reference, loss_mask: [B, T]. kl_coefficient: β. kind: see `kl.kl_estimate`.
    Returns: [B, T], 0 where the mask is.

    Raises:
      ValueError: β below 0, an unknown kind, or arrays of other shapes.
    """
    require.not_negative("kl_coefficient", kl_coefficient)
    penalties = kl_coefficient * kl_estimate(logprobs, reference, kind=kind, mask=loss_mask)
    on = loss_mask > 0
    later = jnp.cumsum(on[:, ::-1], axis=1)[:, ::-1]
    last = on & (later == 1)
    return jnp.where(last, kept(scores, None)[:, None], 0.0) - penalties


def gae(
    rewards: Array,
    values: Array,
    loss_mask: Array,
    *,
    discount: Array | float = 1.0,
    trace: float = 0.95,
    bootstrap: Array | float = 0.0,
) -> Array:
    """Generalized advantage estimates: A_t = δ_t + γ_t λ A_{t+1},  δ_t = r_t + γ_t V_{t+1} − V_t.

    See *High-Dimensional Continuous Control Using Generalized Advantage Estimation*,
    https://arxiv.org/abs/1506.02438. A + V are the λ-returns that a value function learns.

    Args:
      rewards, values, loss_mask: [B, T]; r_t is what action t brings, V_t the value before it.
      discount: γ, one number or [B, T]; 0 at a step that ends an episode. trace: λ.
      bootstrap: V behind the last step, [B] or one number; 0 where the answer is at its end.
    Returns: [B, T], 0 where the mask is.

    Raises:
      ValueError: γ or λ outside 0 .. 1, or arrays of other shapes.
    """
    require.share("discount", discount)
    require.share("trace", trace)
    require.same_shape(rewards=rewards, values=values, loss_mask=loss_mask)
    rewards, values = kept(rewards, loss_mask), kept(values, loss_mask)
    discounts = kept(jnp.broadcast_to(jnp.asarray(discount, jnp.float32), rewards.shape), loss_mask)

    def step(carry: tuple[Array, Array], now: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        advantage, following = carry
        reward, value, gamma, on = now
        found = reward + gamma * following - value + gamma * trace * advantage
        # Over a masked position the next step that exists stays the next one.
        return (jnp.where(on, found, advantage), jnp.where(on, value, following)), jnp.where(on, found, 0.0)

    behind = jnp.broadcast_to(jnp.asarray(bootstrap, jnp.float32), rewards.shape[:1])
    # Made of the inputs, so that it varies over the same mesh axes as they do: `shard_map` asks that of a carry.
    zero = jnp.zeros_like(rewards[:, 0])
    sequence = tuple(x.T for x in (rewards, values, discounts, loss_mask > 0))
    _, advantages = jax.lax.scan(step, (zero, behind + zero), sequence, reverse=True)
    return advantages.T


def discounted_returns(
    rewards: Array, loss_mask: Array, *, discount: Array | float = 1.0, bootstrap: Array | float = 0.0
) -> Array:
    """G_t = r_t + γ_t G_{t+1}, [B, T]; arguments and errors are those of `gae`."""
    return gae(rewards, jnp.zeros_like(rewards), loss_mask, discount=discount, trace=1.0, bootstrap=bootstrap)


def whiten(x: Array, mask: Array, *, shift: bool = True, epsilon: float = 1e-8, axis_name: str | None = None) -> Array:
    """(x − mean) / √(variance + ε) over all entries whose mask is not 0; 0 at the others.

    Args:
      x, mask: [...]. shift: False gives the mean back, so that only the scale changes (rewards, whose sign matters).
      axis_name: of `shard_map` or `pmap`, over which mean and variance are taken too.
    """
    require.same_shape(x=x, mask=mask)
    on = mask > 0
    x = kept(x, on)

    def total(y: Array) -> Array:
        found = jnp.sum(y)
        return found if axis_name is None else jax.lax.psum(found, axis_name)

    count = jnp.maximum(total(on.astype(jnp.float32)), 1.0)
    mean = total(x) / count
    centred = kept(x - mean, on)
    scaled = centred * jax.lax.rsqrt(total(jnp.square(centred)) / count + epsilon)
    return scaled if shift else kept(scaled + mean, on)


def leave_one_out(rewards: Array, *, mask: Array | None = None) -> Array:
    """REINFORCE leave-one-out advantages [B, R]:  A_i = r_i − mean of r_j, j ≠ i, of the same prompt.

    See *Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs*,
    https://arxiv.org/abs/2402.14740.

    Args:
      rewards: [B, R]. mask: [B, R], 0 where an answer has no reward; its advantage is 0, as is that of a single one.

    Raises:
      ValueError: R below 2.
    """
    rewards, on, count = _group(rewards, mask)
    others = (jnp.sum(rewards, axis=1, keepdims=True) - rewards) / jnp.maximum(count - 1, 1)
    return jnp.where(on & (count > 1), rewards - others, 0.0)


def group_advantages(rewards: Array, *, scale: bool = True, epsilon: float = 1e-4, mask: Array | None = None) -> Array:
    """GRPO's advantages [B, R]:  A_i = (r_i − mean r) / (std r + ε) over the answers to one prompt.

    std² is a sum over R − 1, as in `trl`. See *DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open
    Language Models*, https://arxiv.org/abs/2402.03300. Without `scale` prompts that are nearly always or nearly never
    solved get no more weight: *Understanding R1-Zero-Like Training*, https://arxiv.org/abs/2503.20783.

    Args:
      rewards: [B, R]. mask: as in `leave_one_out`. Answers that are all worth the same have advantages of exactly 0.

    Raises:
      ValueError: R below 2, or ε below 0.
    """
    require.not_negative("epsilon", epsilon)
    rewards, on, count = _group(rewards, mask)
    centred = jnp.where(on, rewards - jnp.sum(rewards, axis=1, keepdims=True) / jnp.maximum(count, 1), 0.0)
    if scale:
        variance = jnp.sum(jnp.square(centred), axis=1, keepdims=True) / jnp.maximum(count - 1, 1)
        centred /= jnp.sqrt(variance) + epsilon
    high = jnp.max(jnp.where(on, rewards, -jnp.inf), axis=1, keepdims=True)
    low = jnp.min(jnp.where(on, rewards, jnp.inf), axis=1, keepdims=True)
    return jnp.where(on & (high > low), centred, 0.0)


def _group(rewards: Array, mask: Array | None) -> tuple[Array, Array, Array]:
    """Rewards with 0 for those that do not exist, which exist, and how many in each row [B, 1]."""
    require.same_shape(rewards=rewards, mask=mask)
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(
            f"rewards must be [prompts, answers] with at least 2 answers to each prompt, given {rewards.shape}: "
            "an answer is compared with the others to the same prompt"
        )
    on = jnp.ones(rewards.shape, bool) if mask is None else mask > 0
    return kept(rewards, on), on, jnp.sum(on, axis=1, keepdims=True).astype(jnp.float32)
