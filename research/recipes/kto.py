"""Learning from answers of which each is just good or bad, beside a reference.

B rows · T length
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from research.core.names import meant
from research.core.types import Array, Batch, Params
from research.models import Model
from research.objectives import Loss, kto, kto_baseline
from research.ops.cross_entropy import CHUNK
from research.recipes.dpo import REFERENCES, answer_logprobs, check_writes, policy_of, reference_says, with_options


def kto_loss(
    model: Model, *, reference: str = "adapter", adapter: str | None = None, chunk: int = CHUNK, **options: Any
) -> Callable[[Params, Batch, Array | None], Loss]:
    """Σ over rows of `objectives.kto`, with its baseline from the mismatched answers of the same batch.

    The batch holds rows of `data.unpaired`: [B, 2, T], the answer and an answer to another prompt, with `desirable` [B]
    and `reference` [B, 2] where that is where the reference is. Under a mesh the baseline is of the whole batch; with
    micro-batches it is of each of them, as in `trl`, so that here alone `accumulate` changes the loss.

    Args:
      reference, adapter: see `recipes.dpo.preference_loss`. options: `beta`, `desirable_weight`, `undesirable_weight`.

    Raises:
      ValueError: an unknown reference or option, a model that writes no answers; when it is traced, see `recipes.dpo`.
    """
    if reference not in REFERENCES:
        raise ValueError(f"unknown reference {reference!r}{meant(reference, REFERENCES)}; have {sorted(REFERENCES)}")
    check_writes(model)
    one = jax.ShapeDtypeStruct((1,), jnp.float32)
    objective = with_options("kto", kto, options, one, one, one, one)

    def loss_fn(params: Params, batch: Batch, rng: Array | None) -> Loss:
        own, other = (
            {name: x[:, side] if x.ndim > 2 else x for name, x in batch.items()} for side in (slice(0, 1), slice(1, 2))
        )
        weights = policy_of(params, reference)
        policy = answer_logprobs(model, weights, own, rng, chunk=chunk)
        # Nothing is learned from the mismatched answers: they need no backward pass.
        moved = answer_logprobs(model, jax.lax.stop_gradient(weights), other, chunk=chunk)
        said = reference_says(model, params, batch, reference, adapter=adapter, chunk=chunk)
        on, compared = (part.lengths[:, 0] > 0 for part in (policy, moved))
        total, count = kto_baseline(moved.logprobs[:, 0], said[:, 1], mask=compared)
        baseline = total / jnp.maximum(count, 1)
        return objective(policy.logprobs[:, 0], said[:, 0], batch["desirable"], baseline, mask=on)

    return loss_fn
