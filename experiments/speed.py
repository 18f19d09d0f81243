"""How fast a decoder reads a prompt and writes behind it."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from research.decoding import generate
from research.models import Model


def least_seconds(run: Callable[[], Any], clock: Callable[[], float], repeats: int = 3) -> float:
    """The least time of a few runs; one before them compiles."""
    jax.block_until_ready(run())
    taken = []
    for _ in range(repeats):
        start = clock()
        jax.block_until_ready(run())
        taken.append(clock() - start)
    return min(taken)


def speed(
    model: Model,
    params: Any,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    *,
    cache_dtype: str = "",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Tokens per second: "prefill", of the prompts up to the first new token, and "decode", of those behind it.

    clock: `time.process_time` counts the work of all cores, which other work on the machine hardly changes.
    """
    run = partial(generate, model, params, prompts, logprobs=False, cache_dtype=cache_dtype, room=new_tokens)
    first = least_seconds(lambda: run(max_new_tokens=1).tokens, clock)
    both = least_seconds(lambda: run(max_new_tokens=new_tokens).tokens, clock)
    written = len(prompts) * (new_tokens - 1)
    return {"prefill": sum(map(len, prompts)) / first, "decode": written / max(both - first, 1e-9)}
