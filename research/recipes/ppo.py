"""PPO on answers that the policy wrote: what a batch of them is worth, and the loss on its minibatches.

The weights are one tree: {"policy", "value"}, and "reference" where it is a copy. The value function stands on the
policy's own trunk ("value" holds a head alone) or has one of its own ("value" holds a whole model). Nothing here has
dropout: the ratio of two policies would be noise.

B answers · T length · N most tokens of an answer · S source length
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from research.core import tree
from research.core.names import meant
from research.core.types import Array, Batch, Params
from research.models import Model, build
from research.objectives import (
    clipped_policy,
    clipped_value,
    entropy,
    explained_variance,
    gae,
    kl_estimate,
    token_rewards,
    whiten,
)
from research.objectives.sums import Loss, counted
from research.ops.cross_entropy import CHUNK, over_logits
from research.recipes.dpo import without_adapter

TRUNKS = ("shared", "own")
REFERENCES = ("adapter", "copy")
SAID = ("old_logprobs", "old_values", "advantages", "returns")


@dataclass(frozen=True)
class PPO:
    """The numbers of the method.

    Attributes:
      clip, value_clip: ε of the policy's ratio and of the value's change (None: not clipped).
      value_weight, entropy_weight: factors of these losses beside the policy's.
      discount, trace: γ and λ of the advantages. kl: the estimator of the penalty, see `objectives.kl_estimate`.
      whiten_rewards: rewards of tokens are scaled to variance 1 before advantages are taken.
      temperature: of sampling, and so of the policy that is trained.
    """

    clip: float = 0.2
    value_clip: float | None = 0.2
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    discount: float = 1.0
    trace: float = 0.95
    kl: str = "k1"
    whiten_rewards: bool = False
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("value_weight", "entropy_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or above, given {getattr(self, name)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, given {self.temperature}: a greedy policy explores nothing")


@dataclass(frozen=True)
class ActorCritic:
    """A policy and its value function as functions of their weights; hashable.

    Attributes:
      model: the policy. reference: "adapter" (the policy without the adapters called `adapter`, None: without any; the
        same arrays) or "copy" (`params["reference"]`). chunk: positions whose logits exist at a time.
    """

    model: Model
    reference: str = "adapter"
    adapter: str | None = None
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        if self.reference not in REFERENCES:
            given = self.reference
            raise ValueError(f"unknown reference {given!r}{meant(given, REFERENCES)}; have {sorted(REFERENCES)}")
        config = self.model.config
        if config.head != "lm" or config.kind == "encoder":
            raise ValueError(
                f"a policy is a decoder or an encoder-decoder with head 'lm'; this model is of kind {config.kind!r} "
                f"with head {config.head!r}"
            )

    @property
    def critic(self) -> Model:
        """The model of the value function: one number at every token."""
        config = self.model.config.replace(head="token", n_labels=1, head_dense=False, head_bias=True)
        return build(config, policy=self.model.policy, unroll=self.model.unroll, remat=self.model.remat)

    def begin(self, policy: Params, *, trunk: str = "shared", reference: Params | None = None) -> dict[str, Any]:
        """The tree of weights of a policy; values are 0 at first, a trunk of their own starts as the policy's base.

        reference: what is copied where it is a copy; None: the policy as it is now.

        Raises:
          ValueError: an unknown trunk, or a reference of another architecture (lists what differs).
        """
        if trunk not in TRUNKS:
            raise ValueError(f"unknown trunk {trunk!r}{meant(trunk, TRUNKS)}; have {sorted(TRUNKS)}")
        head = jax.tree.map(lambda w: jnp.zeros(w.shape, w.dtype), self.critic.abstract()["head"])
        value: dict[str, Any] = {"head": head}
        if trunk == "own":
            base = policy if self.reference == "copy" else without_adapter(policy, self.adapter)
            value |= {name: jax.tree.map(jnp.copy, part) for name, part in base.items() if name != "head"}
        params = {"policy": policy, "value": value}
        if self.reference == "adapter":
            return params
        other = policy if reference is None else reference
        tree.check_same(policy, other, "the reference")
        return params | {"reference": jax.tree.map(jnp.copy, other)}

    def learns(self, params: Mapping[str, Any], policy: Any = True) -> dict[str, Any]:
        """Which weights learn: of the policy as `policy` says (a tree of booleans, or True), all of the value's."""
        of = lambda part, on: jax.tree.map(lambda _: on, params[part])  # noqa: E731
        chosen = of("policy", True) if policy is True else policy
        rest = {"reference": of("reference", False)} if "reference" in params else {}
        return {"policy": chosen, "value": of("value", True), **rest}

    def read(
        self, params: Params, batch: Batch, temperature: float = 1.0, *, explores: bool = True
    ) -> tuple[Array, Array, Array]:
        """log π, V and the policy's entropy, [B, T] each; `explores`: the entropy has a gradient.

        log π and the entropy are those of the answer's tokens, and 0 elsewhere.
        """
        output = self.model.apply(params["policy"], batch)
        logprobs, entropies = self._say(params["policy"], output.hidden, batch, temperature, explores)
        value = params["value"]
        if set(value) != {"head"}:
            output = self.critic.apply(value, batch)
        return logprobs, self.critic.classify(value, output, batch)[..., 0], entropies

    def refer(self, params: Params, batch: Batch, temperature: float = 1.0) -> Array:
        """log π_ref [B, T], as `read` has log π."""
        frozen = params["reference"] if self.reference == "copy" else without_adapter(params["policy"], self.adapter)
        return self._say(frozen, self.model.apply(frozen, batch).hidden, batch, temperature, False)[0]

    def _say(
        self, params: Params, hidden: Array, batch: Batch, temperature: float, explores: bool
    ) -> tuple[Array, Array]:
        # The product with the vocabulary is a third of the work: it is made where the answer stands, and nowhere else.
        rows, places = jnp.arange(len(hidden))[:, None], batch["places"]
        features, table, bias, cap = self.model.projection(params, hidden[rows, places])
        targets = jnp.where(batch["loss_mask"] > 0, batch["targets"], 0)[rows, places]

        def one(logits: Array, y: Array) -> tuple[Array, Array]:
            logits = logits / temperature
            total = jax.nn.logsumexp(logits, axis=-1)
            spread = (logits, total) if explores else jax.lax.stop_gradient((logits, total))
            return jnp.take_along_axis(logits, y[..., None], axis=-1)[..., 0] - total, entropy(*spread)

        found = over_logits(one, features, table, targets, bias=bias, cap=cap, chunk=self.chunk)
        blank = jnp.zeros(batch["loss_mask"].shape, jnp.float32)
        return jax.tree.map(lambda x: blank.at[rows, places].set(x), found)


def ppo_loss(pair: ActorCritic, ppo: PPO) -> Callable[[Params, Batch, Array | None], Loss]:
    """Σ over tokens of the clipped policy loss + w_v · the clipped value loss − w_H · entropy.

    The batch holds the model's inputs, `targets`, `loss_mask` [B, T] and `places` [B, N] (see `rollouts.rows`), and
    what `worth` adds: `old_logprobs`, `old_values`, `advantages`, `returns` [B, T].

    Metrics: `policy_loss`, `value_loss`, `entropy`, `clip_fraction`, `value_clip_fraction`, `step_kl` (k3, to the
    policy that sampled), `ratio`.
    """

    def loss_fn(params: Params, batch: Batch, rng: Array | None) -> Loss:
        del rng
        mask = batch["loss_mask"]
        inputs = {name: x for name, x in batch.items() if name not in SAID}
        # Without a bonus the entropy is a figure for the log, and passes back over all logits would add zeros.
        logprobs, values, entropies = pair.read(params, inputs, ppo.temperature, explores=ppo.entropy_weight > 0)
        policy, told = clipped_policy(logprobs, batch["old_logprobs"], batch["advantages"], mask, clip=ppo.clip)
        value, of_value = clipped_value(values, batch["old_values"], batch["returns"], mask, clip=ppo.value_clip)
        spread = counted(entropies, mask)
        metrics = {
            "policy_loss": (policy, told["weight"]),
            "value_loss": (value, told["weight"]),
            "entropy": spread,
            "clip_fraction": told["metrics"]["clip_fraction"],
            "value_clip_fraction": of_value["metrics"]["clip_fraction"],
            "step_kl": told["metrics"]["kl"],
            "ratio": told["metrics"]["ratio"],
        }
        total = policy + ppo.value_weight * value - ppo.entropy_weight * spread[0]
        return total, {"weight": told["weight"], "metrics": jax.lax.stop_gradient(metrics)}

    return loss_fn


def worth(
    ppo: PPO,
    scores: Array,
    logprobs: Array,
    reference: Array,
    values: Array,
    loss_mask: Array,
    kl_coefficient: Array | float,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """What the loss needs of answers with these scores [B], and what is logged of them.

    Rewards of tokens are −β KL, and the score at the last token; advantages are generalized (GAE) and whitened over the
    whole batch, returns are advantages + values.

    Returns: {`old_logprobs`, `old_values`, `advantages`, `returns`} [B, T], and `kl` (to the reference, nats of a whole
      answer, mean over answers), `reward` (score − β KL, the same) and `explained_variance` of the values.
    """
    rewards = token_rewards(scores, logprobs, reference, loss_mask, kl_coefficient=kl_coefficient, kind=ppo.kl)
    kl = jnp.sum(kl_estimate(logprobs, reference, mask=loss_mask), axis=1)
    told = {"kl": jnp.mean(kl), "reward": jnp.mean(jnp.sum(rewards, axis=1))}
    if ppo.whiten_rewards:
        rewards = whiten(rewards, loss_mask, shift=False)
    advantages = gae(rewards, values, loss_mask, discount=ppo.discount, trace=ppo.trace)
    on = loss_mask > 0
    returns = jnp.where(on, advantages + values, 0.0)
    told["explained_variance"] = explained_variance(values, returns, loss_mask)
    said = {"old_logprobs": jnp.where(on, logprobs, 0.0), "old_values": jnp.where(on, values, 0.0)}
    return said | {"advantages": whiten(advantages, loss_mask), "returns": returns}, told
