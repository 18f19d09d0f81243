"""One small training, from weights to weights, with what it cost."""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from research.core import tree
from research.core.dtypes import Policy
from research.training import loss_scale, optim
from research.training.state import create
from research.training.step import LossFn, check_batch, make_step


def train(
    loss_fn: LossFn,
    params: Any,
    rule: Mapping[str, Any],
    batches: Sequence[Mapping[str, np.ndarray]],
    key: jax.Array,
    *,
    trainable: Any = None,
    policy: Policy = Policy(),  # noqa: B008 - frozen
) -> tuple[Any, dict[str, Any]]:
    """One step per batch with the optimizer `rule` (`research.training.optim`); the trained weights and the costs.

    policy: of the model; with float16 products the loss is scaled (`research.training.loss_scale`), and a step whose
    gradients are not finite is passed over.

    Costs: `trainable` (parameters), `bytes` (of these), `memory` (of the step of the largest batch, as compiled),
    `seconds` (median step), `cpu_seconds` (of all cores in it: other work on the machine hardly changes it), `steps`,
    `loss` (mean over the last tenth).

    Raises:
      ValueError: the loss became infinite or NaN.
    """
    learning = params if trainable is None else tree.split(params, trainable)[0]
    optimizer = optim.make(dict(rule), learning, steps=len(batches))
    scale = loss_scale.make({}, policy, learning)
    state, frozen = create(params, optimizer, rng=key, trainable=trainable, loss_scale=scale)
    step = make_step(loss_fn, optimizer)
    # Compiled here, once for each shape: a program that is compiled for its memory alone would be compiled twice.
    shape_of = lambda batch: tuple(sorted((name, array.shape) for name, array in batch.items()))  # noqa: E731
    each = {shape_of(batch): batch for batch in batches}
    programs = {shape: step.lower(state, frozen, batch).compile() for shape, batch in each.items()}
    largest = max(batches, key=lambda batch: sum(array.size for array in batch.values()))
    used = programs[shape_of(largest)].memory_analysis()
    taken, worked, losses = [], [], []
    for batch in batches:
        check_batch(batch, 1)
        start, before = time.perf_counter(), time.process_time()
        state, metrics = programs[shape_of(batch)](state, frozen, batch)
        losses.append(float(metrics["loss"]))
        taken.append(time.perf_counter() - start)
        worked.append(time.process_time() - before)
    if not np.isfinite(losses).all():
        bad = int(np.flatnonzero(~np.isfinite(losses))[0])
        raise ValueError(f"the loss became {losses[bad]} at step {bad} with the optimizer {dict(rule)}")
    costs = {
        "trainable": tree.count(state.params),
        "bytes": tree.nbytes(state.params),
        "memory": int(used.temp_size_in_bytes + used.argument_size_in_bytes) if used else 0,
        "seconds": statistics.median(taken),
        "cpu_seconds": statistics.median(worked),
        "steps": len(batches),
        "loss": statistics.mean(losses[-max(1, len(losses) // 10) :]),
    }
    return (state.params if frozen is None else tree.merge(state.params, frozen)), costs


def linear_decay(learning_rate: float, steps: int, **more: Any) -> dict[str, Any]:
    """AdamW that warms up over a tenth of the steps and falls to zero."""
    warmup = max(1, steps // 10)
    return {
        "name": "adamw",
        "schedule": "linear",
        "end": 0.0,
        "warmup": warmup,
        "learning_rate": learning_rate,
        **more,
    }
