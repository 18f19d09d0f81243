"""What a model costs: its size, its work per token, and how fast it writes here."""

import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from research.core import tree
from research.core.types import Params
from research.decoding import generate, prepare
from research.models import Model
from research.scaling import flops


def efficiency(model: Model, params: Params, tokenizer: Any, tokens: int, batches: Sequence[int]) -> dict[str, float]:
    """Size, work per token, and tokens per second of greedy decoding (the median of three runs, compiled before)."""
    config, length = model.config, model.config.max_length
    found = {
        "parameters": float(tree.count(params)),
        "bytes of weights": float(tree.nbytes(params)),
        f"FLOPs per token, {length} tokens": flops.forward(config, length, seen=True).total() / length,
    }
    ready, first = prepare(model, params), tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
    for size in batches:
        run = partial(generate, model, ready, [[first]] * size, max_new_tokens=tokens, logprobs=False)
        run()
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
        found[f"tokens per second, {size} at a time"] = size * tokens / statistics.median(taken)
    return found
