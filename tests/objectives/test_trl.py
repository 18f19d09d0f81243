"""Values and gradients of `trl`'s own loss functions, called with log-probabilities instead of a model."""

from collections import defaultdict
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import objectives as o

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytestmark = pytest.mark.oracle

P, T = 6, 8


class Accelerator:
    """One process: gathering is doing nothing."""

    device = torch.device("cpu")
    num_processes = 1

    def gather(self, x):
        return x

    gather_for_metrics = gather

    def reduce(self, x, reduction):
        return x


def trainer(**more):
    """What the loss methods of a trainer read of it."""
    return SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=Accelerator(),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
        **more,
    )


def case(seed):
    """Log-probabilities [P, 2, T] of a policy and its reference, and masks with no answer of the full length."""
    rng = np.random.default_rng(seed)
    policy = -np.abs(rng.normal(size=(P, 2, T))).astype(np.float32)
    reference = (policy + 0.7 * rng.normal(size=(P, 2, T))).astype(np.float32)
    first, length = rng.integers(0, 3, (P, 2, 1)), rng.integers(1, 6, (P, 2, 1))
    at = np.arange(T)
    return policy, reference, ((at >= first) & (at < first + length)).astype(np.float32)


def halves(x):
    """[P, 2, ...] as trl has it, all chosen answers and then all rejected ones."""
    return torch.tensor(np.concatenate([x[:, 0], x[:, 1]]))


def outputs(logprobs):
    """What trl's fused output layer gives."""
    rest = torch.zeros_like(logprobs)
    return SimpleNamespace(log_probs=logprobs, entropy=rest, mean_logits=rest, is_top1=rest.bool())


def tokens(mask):
    """Inputs with one token before the first that is predicted."""
    wide = torch.cat([torch.zeros_like(mask[:, :1]), mask], dim=1)
    ids = torch.zeros_like(wide).long()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": wide.long()}


def of_trl(name, options, policy, reference, mask):
    from trl import DPOTrainer

    fake = trainer(
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        loss_types=[name],
        loss_weights=[1.0],
        use_weighting=False,
        **options,
    )
    logprobs = (halves(policy) * halves(mask)).requires_grad_()
    known = torch.tensor((reference * mask).sum(-1))
    batch = tokens(halves(mask)) | {"ref_chosen_logps": known[:, 0], "ref_rejected_logps": known[:, 1]}
    loss = DPOTrainer._compute_loss(fake, lambda **_: outputs(logprobs), batch, False)
    (P * loss).backward()
    grads = logprobs.grad.reshape(2, P, T).swapaxes(0, 1).numpy() * mask
    metrics = {k.removeprefix("rewards/"): v[0] for k, v in fake._metrics["eval"].items() if k.startswith("rewards/")}
    return P * loss.item(), grads, metrics


DIRECT = {
    "sigmoid": (partial(o.dpo, beta=0.3), {"beta": 0.3}),
    "robust": (partial(o.robust_dpo, beta=0.3, label_smoothing=0.2), {"beta": 0.3, "label_smoothing": 0.2}),
    "hinge": (partial(o.hinge, beta=0.6), {"beta": 0.6}),
    "ipo": (partial(o.ipo, tau=0.3), {"beta": 0.3}),
}


@pytest.mark.parametrize("name", DIRECT)
def test_losses_beside_a_reference(name):
    ours, options = DIRECT[name]

    def loss(logprobs, reference, mask):
        policy, lengths = o.sequence_logprobs(logprobs, mask)
        more = {"lengths": lengths} if name == "ipo" else {}
        return ours(policy, o.sequence_logprobs(reference, mask).logprobs, **more)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for seed in range(3):
        (found, aux), grads = run(*case(seed))
        wanted, gradient, metrics = of_trl(name, options, *case(seed))
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        np.testing.assert_allclose(grads, gradient, rtol=1e-4, atol=1e-6)
        names = {
            "accuracy": "accuracies",
            "margin": "margins",
            "reward_chosen": "chosen",
            "reward_rejected": "rejected",
        }
        for mine, theirs in names.items() if name != "ipo" else ():  # trl's rewards are of sums there too
            total, count = aux["metrics"][mine]
            np.testing.assert_allclose(total / count, metrics[theirs], rtol=1e-4, atol=1e-5)


def test_ipo_of_sums_and_conservative_dpo_of_trl():
    from trl.experimental.cpo import CPOTrainer

    policy = torch.tensor(case(0)[0].sum(-1), requires_grad=True)
    pairs = {
        "sigmoid": partial(o.dpo, beta=0.3, label_smoothing=0.2),
        "ipo": partial(o.ipo, tau=0.3),
    }
    for name, ours in pairs.items():
        fake = trainer(alpha=0.0, loss_type=name, beta=0.3, label_smoothing=0.2)
        policy.grad = None
        losses = CPOTrainer.cpo_loss(fake, *policy.T)[0]
        losses.sum().backward()
        run = jax.jit(jax.value_and_grad(lambda q, f=ours: f(q, jnp.zeros_like(q))[0]))
        value, grads = run(policy.detach().numpy())
        np.testing.assert_allclose(value, losses.sum().item(), rtol=1e-5)
        np.testing.assert_allclose(grads, policy.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_losses_without_a_reference(seed):
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    logprobs, _, mask = case(seed)
    lengths = mask.sum(-1)
    policy = (logprobs * mask).sum(-1)

    def theirs(losses):
        means = torch.tensor(policy / lengths, requires_grad=True)
        total = losses(*means.T).sum()
        total.backward()
        return total.item(), means.grad.numpy() / lengths

    simpo = trainer(alpha=0.0, loss_type="simpo", beta=2.5, simpo_gamma=0.8, label_smoothing=0.0)
    orpo = trainer(beta=0.4)
    for ours, wanted in (
        (partial(o.simpo, beta=2.5, gamma=0.8), theirs(lambda c, r: CPOTrainer.cpo_loss(simpo, c, r)[0])),
        # trl's first term is a mean over other tokens than the answers', so it is put in here by hand.
        (partial(o.orpo, weight=0.4), theirs(lambda c, r: -c - ORPOTrainer.odds_ratio_loss(orpo, c, r)[0])),
    ):
        found, grads = jax.jit(jax.value_and_grad(lambda q, f=ours: f(q, lengths)[0]))(policy)
        np.testing.assert_allclose(found, wanted[0], rtol=1e-5)
        np.testing.assert_allclose(grads, wanted[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kto(seed):
    from trl import KTOTrainer

    logprobs, reference, mask = (x[:, 0] for x in case(seed))
    rng = np.random.default_rng(seed)
    good, other, other_reference = rng.integers(0, 2, P), *(-4 * rng.random((2, P)).astype(np.float32))
    good[:2] = 0, 1
    fake = trainer(
        beta=0.3, loss_type="kto", calculate_KL=True, desirable_weight=0.8, undesirable_weight=1.2,
        _compute_kl_logps=lambda model, batch: torch.tensor(other),
    )  # fmt: skip
    theirs = (torch.tensor(logprobs) * torch.tensor(mask)).requires_grad_()
    batch = tokens(torch.tensor(mask)) | {
        "label": torch.tensor(good),
        "ref_logps": torch.tensor((reference * mask).sum(-1)),
        "ref_KL_logps": torch.tensor(other_reference),
    }
    wanted = KTOTrainer._compute_loss(fake, lambda **_: outputs(theirs), batch, False)
    (P * wanted).backward()

    def loss(logprobs):
        total, count = o.kto_baseline(other, other_reference)
        policy, known = (o.sequence_logprobs(x, mask).logprobs for x in (logprobs, reference))
        return o.kto(policy, known, good, total / count, beta=0.3, desirable_weight=0.8, undesirable_weight=1.2)

    (found, aux), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(logprobs)
    np.testing.assert_allclose(found, P * wanted.item(), rtol=1e-5)
    np.testing.assert_allclose(grads, theirs.grad.numpy() * mask, rtol=1e-4, atol=1e-6)
    for mine, trls in (("reward_chosen", "rewards/chosen"), ("reward_rejected", "rewards/rejected"), ("kl", "kl")):
        total, count = aux["metrics"][mine]
        np.testing.assert_allclose(total / count, fake._metrics["eval"][trls][0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_scores_of_pairs(seed):
    from trl import RewardTrainer

    rng = np.random.default_rng(seed)
    scores, margin = rng.normal(size=(P, 2)).astype(np.float32), rng.random(P).astype(np.float32)
    theirs = torch.tensor(scores, requires_grad=True)
    fake = trainer(args=SimpleNamespace(center_rewards_coefficient=0.1))
    output = lambda **_: SimpleNamespace(logits=torch.cat([theirs[:, 0], theirs[:, 1]])[:, None])  # noqa: E731
    wanted = RewardTrainer.compute_loss(fake, output, {"margin": torch.tensor(margin)})
    (P * wanted).backward()
    run = jax.jit(jax.value_and_grad(lambda s: o.bradley_terry(*s.T, margin=margin, center=0.1)[0]))
    found, grads = run(scores)
    np.testing.assert_allclose(found, P * wanted.item(), rtol=1e-5)
    np.testing.assert_allclose(grads, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["grpo", "bnpo"])
def test_grpo_per_answer_and_per_token(kind):
    from trl import GRPOTrainer

    logprobs, reference, mask = (x[:, 0] for x in case(0))
    rng = np.random.default_rng(0)
    old = (logprobs + 0.5 * rng.normal(size=(P, T))).astype(np.float32)
    advantages = rng.normal(size=P).astype(np.float32)
    beta = 0.2 if kind == "grpo" else 0.0
    theirs = torch.tensor(logprobs, requires_grad=True)
    fake = trainer(
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, importance_sampling_level="token", beta=beta,
        loss_type=kind, epsilon_low=0.2, epsilon_high=0.28, use_vllm=False, use_adaptive_entropy=False,
        _entropy_bonus_enabled=False, args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        _get_per_token_logps_and_entropies=lambda *_, **__: (theirs, torch.zeros(P, T), None),
    )  # fmt: skip
    given = {"prompt_ids": torch.zeros(P, 1).long(), "prompt_mask": torch.ones(P, 1).long()}
    given |= {"completion_ids": torch.zeros(P, T).long(), "completion_mask": torch.tensor(mask)}
    given |= {"advantages": torch.tensor(advantages), "old_per_token_logps": torch.tensor(old)}
    given |= {"ref_per_token_logps": torch.tensor(reference)}
    wanted = GRPOTrainer._compute_loss(fake, None, given)
    wanted.backward()
    clips = {"clip": 0.2, "clip_high": 0.28}

    def mean(lp):
        if kind == "grpo":
            loss, aux = o.grpo(lp, old, advantages, mask, reference=reference, kl_coefficient=beta, **clips)
        else:
            loss, aux = o.clipped_policy(lp, old, advantages, mask, **clips)
        return loss / aux["weight"]

    found, grads = jax.jit(jax.value_and_grad(mean))(logprobs)
    np.testing.assert_allclose(found, wanted.item(), rtol=1e-5)
    np.testing.assert_allclose(grads, theirs.grad, rtol=1e-4, atol=1e-6)
