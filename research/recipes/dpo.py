"""Learning from pairs of answers directly: DPO and its neighbours, beside a reference or without one.

What the reference gives an answer comes from one of three places:
  "adapter": the policy without its adapters: the same arrays, no second copy. For LoRA and all that is attached.
  "copy": frozen weights of its own in the tree {"policy": ..., "reference": ...} (`with_copy`). For full training.
  "batch": `reference` [P, 2] in the batch, computed once before training (`reference_logprobs`). For either.

P pairs · T length · S source length
"""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from research import weights
from research.core import mesh as meshes
from research.core import tree
from research.core.names import meant
from research.core.types import Array, Batch, Params
from research.data.sources import Rows, stack
from research.models import Model
from research.objectives import Loss, Sequences, dpo, hinge, ipo, orpo, robust_dpo, sequence_logprobs, simpo
from research.ops.cross_entropy import CHUNK, token_logprobs
from research.weights.prefix import prefix_length
from research.weights.prompts import virtual_ids

BESIDE_A_REFERENCE: dict[str, Callable[..., Loss]] = {
    "dpo": dpo,
    "robust": robust_dpo,
    "ipo": ipo,  # of means per token
    "ipo_sums": ipo,
    "hinge": hinge,
}
ALONE: dict[str, Callable[..., Loss]] = {"simpo": simpo, "orpo": orpo}
REFERENCES = ("adapter", "batch", "copy")
_ROWS = ("preferred", "desirable", "reference", "part")


def answer_logprobs(
    model: Model, params: Params, batch: Batch, rng: Array | None = None, *, chunk: int = CHUNK
) -> Sequences:
    """log π of both answers of each pair and their lengths, [P, 2], for a batch of `data.preference_rows`.

    The batch holds the model's inputs, `targets` and `loss_mask` as [P, 2, T], or [P, 1, T] of single answers; with an
    rng, dropout is on.
    """
    shape = batch["loss_mask"].shape[:2]
    flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in batch.items() if name not in _ROWS}
    mask = flat["loss_mask"]
    output = model.apply(params, flat, rng=rng)
    features, table, bias, cap = model.projection(params, output.hidden)
    targets = jnp.where(mask > 0, flat["targets"], 0)
    logprobs = token_logprobs(features, table, targets, bias=bias, cap=cap, chunk=chunk)
    return jax.tree.map(lambda x: x.reshape(shape), sequence_logprobs(logprobs, mask))


def preference_loss(
    model: Model,
    loss: str = "dpo",
    *,
    reference: str = "adapter",
    adapter: str | None = None,
    chunk: int = CHUNK,
    **options: Any,
) -> Callable[[Params, Batch, Array | None], Loss]:
    """Σ over pairs of a loss of `research.objectives`: "dpo", "robust", "ipo", "ipo_sums", "hinge", "simpo", "orpo".

    The batch is one of `data.preference_rows`: [P, 2, T] with `preferred` [P], and `reference` [P, 2] where that is
    where the reference is. A pair of which an answer has no token counts for nothing. The reference has no dropout.

    Args:
      reference: "adapter", "copy" or "batch"; see the top of this file. Without effect on "simpo" and "orpo", which
        have none and refuse any but the first.
      adapter: the name of the adapters that the policy has and the reference has not; None: all.
      options: of the loss: `beta`, `tau`, `label_smoothing`, ...

    Raises:
      ValueError: an unknown loss, reference or option, a model without an output layer, an encoder; when it is traced,
        a policy without adapters or with a soft prompt and "adapter".
    """
    known = BESIDE_A_REFERENCE | ALONE
    for what, given, names in (("loss", loss, known), ("reference", reference, REFERENCES)):
        if given not in names:
            raise ValueError(f"unknown {what} {given!r}{meant(given, names)}; have {sorted(names)}")
    check_writes(model)
    if loss in ALONE and reference != "adapter":
        raise ValueError(f"{loss!r} has no reference; given reference={reference!r}")
    blank = jax.ShapeDtypeStruct((1, 2), jnp.float32)
    objective = with_options(loss, known[loss], options, blank, blank)

    def loss_fn(params: Params, batch: Batch, rng: Array | None) -> Loss:
        policy = answer_logprobs(model, policy_of(params, reference), batch, rng, chunk=chunk)
        both = jnp.all(policy.lengths > 0, axis=-1)
        rest: dict[str, Any] = {"preferred": batch.get("preferred", 1.0), "mask": both}
        if loss in ALONE:
            return objective(policy.logprobs, policy.lengths, **rest)
        if loss == "ipo":
            rest["lengths"] = policy.lengths
        said = reference_says(model, params, batch, reference, adapter=adapter, chunk=chunk)
        return objective(policy.logprobs, said, **rest)

    return loss_fn


def check_writes(model: Model) -> None:
    """Refuses a model that has no probabilities of answers."""
    if model.config.head != "lm" or model.config.kind == "encoder":
        raise ValueError(
            f"answers are written by a decoder with head 'lm'; this model is of kind {model.config.kind!r} with head "
            f"{model.config.head!r}"
        )


def policy_of(params: Params, reference: str) -> Params:
    """The weights of the policy."""
    return params["policy"] if reference == "copy" else params


def reference_says(
    model: Model, params: Params, batch: Batch, reference: str, *, adapter: str | None = None, chunk: int = CHUNK
) -> Array:
    """log π_ref of both answers of each pair, [P, 2], without dropout or gradient; see the top of this file."""
    if reference == "batch":
        return batch["reference"]
    frozen = params["reference"] if reference == "copy" else without_adapter(params, adapter)
    return answer_logprobs(model, jax.lax.stop_gradient(frozen), batch, chunk=chunk).logprobs


def without_adapter(params: Params, adapter: str | None = None) -> Params:
    """The weights below the adapters, which they share with the policy: the reference that costs no memory.

    Raises:
      ValueError: there is no such adapter, or a soft prompt, whose base cannot read the batch.
    """
    if not weights.names(params) and not prefix_length(params):
        raise ValueError(
            "the policy has no adapter that could be taken off to give the reference; train all of it beside a copy "
            "(reference='copy') or beside log-probabilities computed before (reference='batch')"
        )
    if virtual_ids(params):
        raise ValueError(
            "under a soft prompt the base reads other tokens than the policy; compute what it says beforehand "
            "(reference='batch')"
        )
    return weights.strip(params, adapter)


def with_copy(params: Params, reference: Params | None = None) -> tuple[dict[str, Params], dict[str, Any]]:
    """({"policy", "reference"}, which of it is trained) for training all weights beside a frozen copy.

    reference: other weights of the same shapes; None: the policy's own, as they are now.

    Raises:
      ValueError: a reference of another architecture; lists what differs.
    """
    other = params if reference is None else reference
    tree.check_same(params, other, "the reference")
    both = {"policy": params, "reference": jax.tree.map(jnp.copy, other)}
    return both, {name: jax.tree.map(lambda _, on=name == "policy": on, part) for name, part in both.items()}


def reference_logprobs(
    model: Model,
    params: Params,
    rows: Rows,
    *,
    batch_size: int = 8,
    chunk: int = CHUNK,
    mesh: Mesh | None = None,
    show: Callable[[int], None] | None = None,
) -> np.ndarray:
    """log π_ref of both answers of every row, [n, 2] float32, for `data.preference_rows.WithReference`.

    show: told after each batch how many rows are done.
    """
    found = np.zeros((len(rows), 2), np.float32)
    rng = np.random.default_rng(0)
    for start in range(0, len(rows), batch_size):
        index = np.arange(start, min(start + batch_size, len(rows)))
        # Full batches only, so that there is one program.
        padded = np.resize(index, batch_size)
        batch = stack([rows.row(int(i), rng) for i in padded])
        with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
            found[index] = np.asarray(_score(model, params, meshes.place(batch, mesh), chunk))[: len(index)]
        if show is not None:
            show(int(index[-1]) + 1)
    return found


@partial(jax.jit, static_argnums=(0, 3))
def _score(model: Model, params: Params, batch: Batch, chunk: int) -> Array:
    return answer_logprobs(model, params, batch, chunk=chunk).logprobs


def with_options(
    name: str, objective: Callable[..., Loss], options: dict[str, Any], *blanks: jax.ShapeDtypeStruct
) -> Callable[..., Loss]:
    """The loss with its options in place, refused here and not when it is first traced.

    Raises:
      ValueError: an option that it has not (the nearest is named), or a number outside its range.
    """
    check_options(name, objective, options)
    ready = partial(objective, **options)
    jax.eval_shape(ready, *blanks)
    return ready


def check_options(name: str, function: Callable[..., Any], options: dict[str, Any]) -> None:
    """Refuses an option that the function has not, with the nearest one that it has."""
    every = function.__kwdefaults__ or {}
    own = {k for k in every if k not in ("mask", "preferred", "lengths")}
    for option in options:
        if option not in own:
            raise ValueError(f"{name!r} has no option {option!r}{meant(option, own)}; have {sorted(own)}")
