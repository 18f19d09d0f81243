"""Learning-rate schedules: pure functions of the step, with a linear warm-up in front of each."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

Schedule: TypeAlias = Callable[[jax.Array | int], jax.Array]
"""step (0 for the first update) -> learning rate, a float32 scalar."""

SHAPES = ("cosine", "wsd", "rsqrt", "linear", "constant")


def make_schedule(
    shape: str, peak: float, *, warmup: int = 0, steps: int | None = None, end: float = 0.0, decay: int | None = None
) -> Schedule:
    """peak · min(1, (s+1)/warmup) · shape(s), where s counts updates from 0.

    cosine    end + (1-end) (1 + cos πp)/2      p = (s-warmup)/(steps-warmup), clipped to [0, 1]
    linear    1 - (1-end) p
    wsd       1, then linear to `end` over the last `decay` steps (warm-up, stable, decay)
    rsqrt     √(w/(s+1)) once s+1 > w           w = max(warmup, 1)
    constant  1

    `end` is a fraction of the peak; `decay` defaults to a fifth of the steps. See *MiniCPM*, Hu et al.,
    https://arxiv.org/abs/2404.06395 (wsd) and *Attention Is All You Need*, Vaswani et al.,
    https://arxiv.org/abs/1706.03762 (rsqrt).

    Raises:
      ValueError: an unknown shape, a negative number, a warm-up or decay longer than the run, or no `steps`
        where the shape needs to know the end of the run.
    """
    if shape not in SHAPES:
        raise ValueError(f"unknown schedule {shape!r}; have {list(SHAPES)}")
    if peak <= 0 or warmup < 0 or not 0 <= end <= 1:
        raise ValueError(f"need peak > 0, warmup >= 0, 0 <= end <= 1; given {peak=}, {warmup=}, {end=}")
    if shape in ("constant", "rsqrt"):
        total, tail = 0, 0
    else:
        total, tail = _end_of_run(shape, warmup, steps, decay)

    def schedule(step: jax.Array | int) -> jax.Array:
        done = jnp.asarray(step, jnp.float32) + 1.0
        ramp = jnp.minimum(1.0, done / warmup) if warmup else jnp.float32(1.0)
        return peak * ramp * _shape(shape, done, warmup, total, tail, end)

    return schedule


def _end_of_run(shape: str, warmup: int, steps: int | None, decay: int | None) -> tuple[int, int]:
    if steps is None or steps <= 0:
        raise ValueError(f"schedule {shape!r} needs the number of steps of the run, given {steps}")
    tail = decay if decay is not None else max(1, steps // 5)
    if warmup > steps or (shape == "wsd" and not 0 < tail <= steps - warmup):
        raise ValueError(f"warm-up of {warmup} and decay of {tail} steps do not fit into {steps} steps")
    return steps, tail


def _shape(shape: str, done: jax.Array, warmup: int, total: int, tail: int, end: float) -> jax.Array:  # `done` = s + 1
    if shape == "constant":
        return jnp.float32(1.0)
    if shape == "rsqrt":
        start = max(warmup, 1)
        return jnp.sqrt(start / jnp.maximum(done, start))
    if shape == "wsd":
        return 1.0 - (1.0 - end) * jnp.clip((done - 1 - (total - tail)) / tail, 0.0, 1.0)
    progress = jnp.clip((done - 1 - warmup) / max(total - warmup, 1), 0.0, 1.0)
    if shape == "linear":
        return 1.0 - (1.0 - end) * progress
    return end + (1.0 - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
