"""What follows from the wish that one answer be preferred to another: for scores, and for a policy beside a reference.

P pairs · B rows · T length · R ranked answers

A policy is given by log π(answer | prompt) of whole answers, [P, 2] with the chosen one first; `sequence_logprobs`
makes them from tokens. Nothing is differentiated through what the reference gives.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.core.types import Array
from research.objectives import require
from research.objectives.sums import Loss, counted, kept, summed


class Sequences(NamedTuple):
    """log π of whole answers, Σ over their tokens, and how many tokens each has; both [...] and float32."""

    logprobs: Array
    lengths: Array


def sequence_logprobs(logprobs: Array, loss_mask: Array) -> Sequences:
    """log π(y | x) = Σ_t log π(y_t | x, y_<t) over the tokens whose mask is not 0.

    Args:
      logprobs, loss_mask: [..., T]; what stands at a masked position has no effect.
    """
    require.same_shape(logprobs=logprobs, loss_mask=loss_mask)
    return Sequences(jnp.sum(kept(logprobs, loss_mask), axis=-1), jnp.sum(loss_mask > 0, axis=-1, dtype=jnp.float32))


def pairwise_log_sigmoid(
    first: Array,
    second: Array,
    *,
    preferred: Array | float = 1.0,
    margin: Array | float = 0.0,
    mask: Array | None = None,
) -> Array:
    """Bradley-Terry losses [P]:  −p log σ(first − second − m) − (1 − p) log σ(second − first − m).

    See *Rank Analysis of Incomplete Block Designs*, Bradley and Terry, 1952; *Training language models to follow
    instructions with human feedback*, https://arxiv.org/abs/2203.02155 (p = 1, m = 0); *Llama 2*,
    https://arxiv.org/abs/2307.09288 (m by how sure the judges were).

    Args:
      first, second: [P] scores. preferred: p, the share of judges that prefer the first; a tie is 0.5, at which equal
        scores have the least loss.
      margin: m, by how much the preferred score is to be higher; [P] or one for all.
      mask: [P], 0 where there is no pair: the loss is 0 there, and so is its gradient, whatever the scores are.
    """
    difference = kept(first, mask) - kept(second, mask)
    preferred, margin = kept(preferred, mask), kept(margin, mask)
    losses = -preferred * jax.nn.log_sigmoid(difference - margin)
    losses -= (1 - preferred) * jax.nn.log_sigmoid(-difference - margin)
    return kept(losses, mask)


def bradley_terry(
    first: Array,
    second: Array,
    *,
    preferred: Array | float = 1.0,
    margin: Array | float = 0.0,
    center: float = 0.0,
    mask: Array | None = None,
) -> Loss:
    """Σ over pairs of `pairwise_log_sigmoid` + c (first + second)².

    Scores are determined up to a number that is added to all of them; c > 0 keeps their mean at 0: *Helping or
    Herding? Reward Model Ensembles Mitigate but do not Eliminate Reward Hacking*, https://arxiv.org/abs/2312.09244.

    Args:
      first, second, preferred, margin, mask: see `pairwise_log_sigmoid`. center: c.
    Metrics: `accuracy` and `margin` (by how much the preferred score is higher), over the pairs that are no tie.

    Raises:
      ValueError: c below 0, or scores of different shapes.
    """
    require.not_negative("center", center)
    require.same_shape(first=first, second=second, mask=mask)
    losses = pairwise_log_sigmoid(first, second, preferred=preferred, margin=margin, mask=mask)
    first, second = kept(first, mask), kept(second, mask)
    losses += center * jnp.square(first + second)
    return summed(losses, mask, agreement(first - second, preferred, mask))


def plackett_luce(scores: Array, *, mask: Array | None = None) -> Loss:
    """Σ over rankings of −Σ_i log( exp s_i / Σ_{j ≥ i} exp s_j ), the best answer first; of two it is Bradley-Terry.

    See *The Analysis of Permutations*, Plackett, 1975; for language models *Preference Ranking Optimization*,
    https://arxiv.org/abs/2306.17492. A ranking with ties is given as pairs to `bradley_terry`.

    Args:
      scores: [B, R], in the order in which the answers were ranked.
      mask: [B, R], 0 where there is no answer. A row with fewer than two counts for nothing.
    Metrics: `accuracy`, the share of a ranking's pairs whose scores are in its order.

    Raises:
      ValueError: R below 2.
    """
    require.same_shape(scores=scores, mask=mask)
    R = scores.shape[-1]
    if R < 2:
        raise ValueError(f"a ranking needs at least 2 answers, given scores of shape {scores.shape}")
    on = jnp.ones(scores.shape, bool) if mask is None else mask > 0
    # Far below any score, so that it adds nothing to a sum of exponentials, and finite, so that it has a gradient.
    low = kept(scores, on, -1e30)
    rest = jax.lax.cumlogsumexp(low, axis=scores.ndim - 1, reverse=True)
    rows = jnp.sum(jnp.where(on, rest - low, 0.0), axis=-1)
    ranked = jnp.sum(on, axis=-1) >= 2
    pairs = on[..., :, None] & on[..., None, :] & jnp.triu(jnp.ones((R, R), bool), 1)
    return summed(rows, ranked, {"accuracy": counted(low[..., :, None] > low[..., None, :], pairs)})


def dpo(
    policy: Array,
    reference: Array,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    preferred: Array | float = 1.0,
    mask: Array | None = None,
) -> Loss:
    """Direct preference optimization: Σ −p log σ(β h) − (1 − p) log σ(−β h),  h = r_chosen − r_rejected.

    r = log π(y | x) − log π_ref(y | x); β r is the reward that the policy implies. See *Direct Preference Optimization:
    Your Language Model is Secretly a Reward Model*, https://arxiv.org/abs/2305.18290; with label smoothing ε, which
    turns p into p (1 − ε) + (1 − p) ε, it is conservative DPO: *A note on DPO with noisy preferences*, Mitchell, 2023.

    Args:
      policy, reference: [P, 2] log-probabilities of whole answers, the chosen one first.
      preferred: p, how sure it is that the chosen one is better; [P] or one for all, 0.5 for a tie.
      mask: [P], 0 where there is no pair.
    Metrics: `accuracy` and `margin` (of the implied rewards, over pairs that are no tie), `reward_chosen`,
      `reward_rejected`.

    Raises:
      ValueError: β not above 0, ε outside [0, 0.5), or arrays of other shapes.
    """
    ratios = _ratios(policy, reference, beta, mask)
    smoothed = _smoothed(preferred, label_smoothing)
    losses = pairwise_log_sigmoid(*(beta * ratios).T, preferred=smoothed, mask=mask)
    return _direct(losses, beta * ratios, preferred, mask)


def robust_dpo(
    policy: Array,
    reference: Array,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.1,
    preferred: Array | float = 1.0,
    mask: Array | None = None,
) -> Loss:
    """DPO whose expectation is that on clean labels where a share ε of them is flipped; for p = 1

        Σ ( −(1 − ε) log σ(β h) + ε log σ(−β h) ) / (1 − 2ε)

    See *Provably Robust DPO: Aligning Language Models with Noisy Feedback*, https://arxiv.org/abs/2403.00409.
    Arguments, metrics and errors are those of `dpo`; the loss of a pair may be negative.
    """
    rewards = beta * _ratios(policy, reference, beta, mask)
    _smoothed(1.0, label_smoothing)

    def loss(h: Array) -> Array:
        clean, flipped = -jax.nn.log_sigmoid(h), -jax.nn.log_sigmoid(-h)
        return ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)

    return _direct(_either_way(loss, rewards, preferred, mask), rewards, preferred, mask)


def ipo(
    policy: Array,
    reference: Array,
    *,
    tau: float = 0.1,
    lengths: Array | None = None,
    preferred: Array | float = 1.0,
    mask: Array | None = None,
) -> Loss:
    """Identity preference optimization: Σ p (h − 1/(2τ))² + (1 − p) (h + 1/(2τ))².

    h is pulled to (2p − 1)/(2τ), not to infinity as by DPO, however sure the labels are. See *A General Theoretical
    Paradigm to Understand Learning from Human Preferences*, https://arxiv.org/abs/2310.12036, equation 17.

    Args:
      lengths: [P, 2] numbers of tokens: h is then a difference of means per token (r / length), which is what `trl`
        computes and, by its authors' word, what the paper's experiments did. None: of sums, as equation 17 has it,
        so that τ means another thing for longer answers.
      policy, reference, preferred, mask: see `dpo`.
    Metrics: those of `dpo`, with τ r (or τ r / length) as the reward.

    Raises:
      ValueError: τ not above 0, or arrays of other shapes.
    """
    require.positive("tau", tau)
    require.same_shape(policy=policy, lengths=lengths)
    ratios = _ratios(policy, reference, 1.0, mask)
    if lengths is not None:
        ratios /= jnp.maximum(kept(lengths, None if mask is None else mask[:, None], 1.0), 1.0)
    losses = _either_way(lambda h: jnp.square(h - 1 / (2 * tau)), ratios, preferred, mask)
    return _direct(losses, tau * ratios, preferred, mask)


def hinge(
    policy: Array,
    reference: Array,
    *,
    beta: float = 0.1,
    preferred: Array | float = 1.0,
    mask: Array | None = None,
) -> Loss:
    """Σ p max(0, 1 − β h) + (1 − p) max(0, 1 + β h): a pair that is far enough apart is left alone.

    See *SLiC-HF: Sequence Likelihood Calibration with Human Feedback*, https://arxiv.org/abs/2305.10425, here beside a
    reference as in *Statistical Rejection Sampling Improves Preference Optimization*, https://arxiv.org/abs/2309.06657.
    Arguments, metrics and errors are those of `dpo`.
    """
    ratios = beta * _ratios(policy, reference, beta, mask)
    return _direct(_either_way(lambda h: jax.nn.relu(1 - h), ratios, preferred, mask), ratios, preferred, mask)


def _ratios(policy: Array, reference: Array, beta: float, mask: Array | None) -> Array:
    """log π − log π_ref, [P, 2] float32, 0 where there is no pair."""
    require.positive("beta", beta)
    require.same_shape(policy=policy, reference=reference)
    require.pairs("policy", policy, mask)
    both = None if mask is None else mask[:, None]
    return kept(policy, both) - jax.lax.stop_gradient(kept(reference, both))


def _smoothed(preferred: Array | float, label_smoothing: float) -> Array | float:
    require.share("label_smoothing", label_smoothing, below=0.5)
    return preferred * (1 - label_smoothing) + (1 - preferred) * label_smoothing


def _either_way(loss: Callable[[Array], Array], ratios: Array, preferred: Array | float, mask: Array | None) -> Array:
    h, preferred = ratios[:, 0] - ratios[:, 1], kept(preferred, mask)
    return preferred * loss(h) + (1 - preferred) * loss(-h)


def _direct(losses: Array, rewards: Array, preferred: Array | float, mask: Array | None) -> Loss:
    """The loss over pairs with the metrics of the rewards [P, 2] that the policy implies."""
    chosen, rejected = rewards.T
    metrics = {
        **agreement(chosen - rejected, preferred, mask),
        "reward_chosen": counted(chosen, mask),
        "reward_rejected": counted(rejected, mask),
    }
    return summed(losses, mask, metrics)


def agreement(difference: Array, preferred: Array | float, mask: Array | None) -> dict[str, tuple[Array, Array]]:
    """How often, and by how much, the preferred score is the higher one; a tie has no right answer."""
    side = jnp.sign(kept(preferred, mask, 0.5) - 0.5) * jnp.ones_like(difference)
    decided = (side != 0) if mask is None else (side != 0) * mask
    return {"accuracy": counted(side * difference > 0, decided), "margin": counted(side * difference, decided)}
