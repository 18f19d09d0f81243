"""Compilation alone: does the time to compile a training step grow with depth, and what does the cache save?

    python tools/bench_compile.py [--rounds=3]

A decoder of width 768 with 2, 12 and 48 scanned layers; each step is lowered and compiled anew every round, without and
with the persistent compilation cache; only the compilation is timed. Keys of the last line: `depth_ratio_48_2` (48 layers over 2, cold),
`warm_seconds` (12 layers, program read back from the cache).
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp

from research.core import compilation
from research.models import build, preset
from research.recipes.pretrain import language_model_loss
from research.training import optim
from research.training.state import State
from research.training.step import make_step
from tools.bench_common import conclude, report, settings

DEPTHS = (2, 12, 48)


def lower(layers: int):
    """The lowered training step of a GPT-2 of width 768, from shapes alone."""
    model = build(preset("gpt2", n_layers=layers), policy="bf16")
    shapes = model.abstract()
    optimizer = optim.make({"name": "adamw"}, shapes, steps=10)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = State(jax.ShapeDtypeStruct((), jnp.int32), shapes, jax.eval_shape(optimizer.init, shapes), key)
    tokens = jax.ShapeDtypeStruct((4, 512), jnp.int32)
    batch = {"tokens": tokens, "targets": tokens, "loss_mask": jax.ShapeDtypeStruct((4, 512), jnp.float32)}
    step = make_step(language_model_loss(model), optimizer)
    return jax.jit(step.update).lower(state, None, batch)


def compile_seconds(layers: int) -> float:
    """One compilation of a program lowered anew (a lowered program remembers its executable)."""
    jax.clear_caches()
    lowered = lower(layers)
    begin = time.perf_counter()
    lowered.compile()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(settings(model="GPT-2 width 768, batch 4 x 512, bf16 compute, AdamW", layers="scanned"))
    compilation.use_cache("")
    cold: dict[int, list[float]] = {layers: [] for layers in DEPTHS}
    for _ in range(rounds):
        for layers in DEPTHS:
            cold[layers].append(compile_seconds(layers))
    with tempfile.TemporaryDirectory() as folder:
        compilation.use_cache(folder)
        compile_seconds(12)
        if not any(Path(folder).iterdir()):
            raise RuntimeError("the persistent cache stayed empty: nothing to measure")
        warm = [compile_seconds(12) for _ in range(rounds)]
    report({f"{layers} layers, cold": seconds for layers, seconds in cold.items()} | {"12 layers, cached": warm})
    ratio = statistics.median(a / b for a, b in zip(cold[48], cold[2], strict=True))
    conclude({"depth_ratio_48_2": ratio, "warm_seconds": statistics.median(warm)})


if __name__ == "__main__":
    main()
