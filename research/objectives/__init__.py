"""Losses as functions of arrays: no model, no weights, no batch."""

from research.objectives.advantages import (
    discounted_returns,
    gae,
    group_advantages,
    leave_one_out,
    token_rewards,
    whiten,
)
from research.objectives.contrastive import info_nce
from research.objectives.distillation import (
    attention_matching,
    distillation,
    divergence,
    hidden_matching,
    topk_distillation,
    topk_divergence,
)
from research.objectives.kl import adaptive_kl, fixed_kl, kl_estimate
from research.objectives.kto import kto, kto_baseline
from research.objectives.policy import (
    clipped_policy,
    clipped_value,
    entropy,
    entropy_bonus,
    explained_variance,
    grpo,
    reinforce,
)
from research.objectives.preference import (
    Sequences,
    bradley_terry,
    dpo,
    hinge,
    ipo,
    pairwise_log_sigmoid,
    plackett_luce,
    robust_dpo,
    sequence_logprobs,
)
from research.objectives.reference_free import orpo, simpo
from research.objectives.sums import Loss

__all__ = [
    "Loss",
    "Sequences",
    "adaptive_kl",
    "attention_matching",
    "bradley_terry",
    "clipped_policy",
    "clipped_value",
    "discounted_returns",
    "distillation",
    "divergence",
    "dpo",
    "entropy",
    "entropy_bonus",
    "explained_variance",
    "fixed_kl",
    "gae",
    "group_advantages",
    "grpo",
    "hidden_matching",
    "hinge",
    "info_nce",
    "ipo",
    "kl_estimate",
    "kto",
    "kto_baseline",
    "leave_one_out",
    "orpo",
    "pairwise_log_sigmoid",
    "plackett_luce",
    "reinforce",
    "robust_dpo",
    "sequence_logprobs",
    "simpo",
    "token_rewards",
    "topk_distillation",
    "topk_divergence",
    "whiten",
]
