"""Bad input of preference and policy losses: one line that says what was given, before anything is computed."""

import jax
import jax.numpy as jnp
import pytest

from research import objectives as o

ROWS, PAIRS, TOKENS, RANKED = jnp.zeros(3), jnp.zeros((3, 2)), jnp.zeros((3, 4)), jnp.zeros((3, 5))
ON, ONE = jnp.ones((3, 4)), jnp.ones((3, 1))

CASES = {
    "DPO without a beta": (lambda: o.dpo(PAIRS, PAIRS, beta=0), "beta must be above 0, given 0"),
    "beta below 0": (lambda: o.robust_dpo(PAIRS, PAIRS, beta=-0.1), "beta must be above 0, given -0.1"),
    "beta that is no number": (lambda: o.hinge(PAIRS, PAIRS, beta=float("nan")), "beta must be above 0, given nan"),
    "tau of 0": (lambda: o.ipo(PAIRS, PAIRS, tau=0.0), "tau must be above 0, given 0.0"),
    "half of the labels flipped": (
        lambda: o.dpo(PAIRS, PAIRS, label_smoothing=0.5),
        r"label_smoothing must be in 0 \.\. 0\.5, which is not in it; given 0\.5",
    ),
    "smoothing below 0": (lambda: o.robust_dpo(PAIRS, PAIRS, label_smoothing=-0.1), "label_smoothing .*given -0.1"),
    "answers that are no pairs": (
        lambda: o.dpo(RANKED, RANKED),
        r"policy must hold the chosen and the rejected answer of each pair, \[P, 2\]; given \(3, 5\)",
    ),
    "one row for all pairs": (lambda: o.ipo(ROWS, ROWS), r"each pair, \[P, 2\]; given \(3,\)"),
    "reference of other pairs": (
        lambda: o.dpo(PAIRS, PAIRS[:2]),
        r"shapes must be the same, given {'policy': \(3, 2\), 'reference': \(2, 2\)}",
    ),
    "mask of tokens for pairs": (
        lambda: o.hinge(PAIRS, PAIRS, mask=PAIRS),
        r"the mask of 3 pairs must have the shape \(3,\), given \(3, 2\)",
    ),
    "lengths of other pairs": (lambda: o.ipo(PAIRS, PAIRS, lengths=ROWS), r"'lengths': \(3,\)"),
    "lengths of other answers": (lambda: o.simpo(PAIRS, PAIRS[:1]), r"'lengths': \(1, 2\)"),
    "SimPO's beta": (lambda: o.simpo(PAIRS, PAIRS, beta=0), "beta must be above 0"),
    "SimPO's margin": (lambda: o.simpo(PAIRS, PAIRS, gamma=-1), "gamma must be 0 or above, given -1"),
    "ORPO's weight": (lambda: o.orpo(PAIRS, PAIRS, weight=0), "weight must be above 0, given 0"),
    "KTO's beta": (lambda: o.kto(ROWS, ROWS, ROWS, 0, beta=0), "beta must be above 0"),
    "KTO that forgets the good": (lambda: o.kto(ROWS, ROWS, ROWS, 0, desirable_weight=0), "desirable_weight must be"),
    "KTO that forgets the bad": (lambda: o.kto(ROWS, ROWS, ROWS, 0, undesirable_weight=-1), "undesirable_weight must"),
    "KTO on pairs": (lambda: o.kto(PAIRS, PAIRS, ROWS, 0), r"'desirable': \(3,\)"),
    "baseline of other answers": (lambda: o.kto_baseline(ROWS, TOKENS), r"'reference': \(3, 4\)"),
    "masks of other tokens": (lambda: o.sequence_logprobs(TOKENS, ROWS), r"'loss_mask': \(3,\)"),
    "negative centring": (lambda: o.bradley_terry(ROWS, ROWS, center=-1), "center must be 0 or above, given -1"),
    "scores of other pairs": (lambda: o.bradley_terry(ROWS, ROWS[:2]), r"'second': \(2,\)"),
    "ranking of one": (lambda: o.plackett_luce(ONE), r"at least 2 answers, given scores of shape \(3, 1\)"),
    "clip of 0": (lambda: o.clipped_policy(TOKENS, TOKENS, ROWS, ON, clip=0), "clip must be above 0 and below 1"),
    "clip in per cent": (lambda: o.clipped_policy(TOKENS, TOKENS, ROWS, ON, clip=20), "below 1, given 20"),
    "upper clip below 0": (lambda: o.grpo(TOKENS, TOKENS, ROWS, ON, clip_high=-1), "clip_high must be above 0"),
    "old policy of other tokens": (lambda: o.clipped_policy(TOKENS, RANKED, ROWS, ON), r"'old_logprobs': \(3, 5\)"),
    "advantages of other answers": (
        lambda: o.reinforce(TOKENS, ROWS[:2], ON),
        r"of answers \(3,\) or of tokens \(3, 4\); given \(2,\)",
    ),
    "clip of values": (lambda: o.clipped_value(TOKENS, TOKENS, TOKENS, ON, clip=0), "clip must be above 0, given 0"),
    "returns of other tokens": (lambda: o.clipped_value(TOKENS, TOKENS, ROWS, ON), r"'returns': \(3,\)"),
    "logits of other tokens": (lambda: o.entropy_bonus(TOKENS[..., None], RANKED), r"'loss_mask': \(3, 5\)"),
    "KL to nobody": (
        lambda: o.grpo(TOKENS, TOKENS, ROWS, ON, kl_coefficient=0.1),
        "kl_coefficient 0.1 needs the reference's log-probabilities; none were given",
    ),
    "KL coefficient below 0": (
        lambda: o.token_rewards(ROWS, TOKENS, TOKENS, ON, kl_coefficient=-0.1),
        "kl_coefficient must be 0 or above, given -0.1",
    ),
    "estimator that does not exist": (
        lambda: o.kl_estimate(TOKENS, TOKENS, kind="k4"),
        r"unknown KL estimator 'k4', did you mean 'k\d'\?; have \['k1', 'k2', 'k3'\]",
    ),
    "target KL of 0": (lambda: o.adaptive_kl(0.1, 1.0, target=0), "target must be above 0, given 0"),
    "KL that is not steered": (lambda: o.adaptive_kl(0.1, 1.0, target=6, gain=0), "gain must be above 0, given 0"),
    "discount above 1": (lambda: o.gae(TOKENS, TOKENS, ON, discount=1.1), r"discount must be in 0 \.\. 1; given 1.1"),
    "trace below 0": (lambda: o.gae(TOKENS, TOKENS, ON, trace=-0.1), "trace must be in"),
    "values of other tokens": (lambda: o.gae(TOKENS, RANKED, ON), r"'values': \(3, 5\)"),
    "whitening of other tokens": (lambda: o.whiten(TOKENS, RANKED), r"'mask': \(3, 5\)"),
    "RLOO with nobody else": (lambda: o.leave_one_out(ONE), r"at least 2 answers to each prompt, given \(3, 1\)"),
    "GRPO with nobody else": (lambda: o.group_advantages(ONE), r"at least 2 answers to each prompt, given \(3, 1\)"),
    "rewards without prompts": (lambda: o.group_advantages(ROWS), r"\[prompts, answers\].*given \(3,\)"),
    "InfoNCE without a temperature": (lambda: o.info_nce(PAIRS, PAIRS, temperature=0), "temperature must be above 0"),
    "passages of other queries": (lambda: o.info_nce(PAIRS, PAIRS[:2]), r"'passages': \(2, 2\)"),
    "queries that are no vectors": (lambda: o.info_nce(ROWS, ROWS), r"vectors, \[P, D\]; given \(3,\)"),
    "groups of other pairs": (
        lambda: o.info_nce(PAIRS, PAIRS, groups=ROWS[:2]),
        r"the groups of 3 pairs must have the shape \(3,\), given \(2,\)",
    ),
    "hard negatives of another width": (
        lambda: o.info_nce(PAIRS, PAIRS, negatives=ON[..., None]),
        r"negatives must be \[3, H, 2\], the hard ones of each query; given \(3, 4, 1\)",
    ),
    "mask of other negatives": (
        lambda: o.info_nce(PAIRS, PAIRS, negatives=PAIRS[:, None], negative_mask=ROWS),
        r"the mask of negatives must have the shape \(3, 1\), given \(3,\)",
    ),
    "mask of no negatives": (
        lambda: o.info_nce(PAIRS, PAIRS, negative_mask=ON),
        "a mask of negatives was given without",
    ),
}


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "-"))
def test_refusals(name):
    call, message = CASES[name]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_what_is_traced_is_taken():
    # The same numbers as arguments of a compiled function cannot be looked at, and must not be.
    run = jax.jit(
        lambda beta, discount: (o.dpo(PAIRS, PAIRS, beta=beta)[0], o.gae(TOKENS, TOKENS, ON, discount=discount))
    )
    run(0.1, 0.9)
