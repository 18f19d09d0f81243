"""Compilation alone: a training step of width 768 with 2, 12 and 48 scanned layers, cold and from the cache.

    python tools/bench_compile.py [--repeats 2] [--width 768]

`depth_ratio_48_2` is the compile time of 48 layers over that of 2 (scanned layers are one program, so it stays near
1); `warm_seconds` is the time in which a fresh compilation of the deepest step is read back from the persistent cache.
"""

import statistics
import tempfile
import time

import bench_common as common
import jax
import jax.numpy as jnp

from research.core.compilation import use_cache
from research.models import build, preset
from research.recipes.pretrain import language_model_loss
from research.training import optim
from research.training.state import State
from research.training.step import make_step

DEPTHS = (2, 12, 48)
NO_DROPOUT = {"embed_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0}


def lowered(layers: int, width: int) -> jax.stages.Lowered:
    """A training step over abstract weights, traced and not yet compiled."""
    config = preset("gpt2").replace(n_layers=layers, d_model=width, n_heads=width // 64, d_ff=4 * width, **NO_DROPOUT)
    model = build(config, policy="bf16")
    rule = {"name": "adamw", "learning_rate": 1e-4, "schedule": "constant"}
    optimizer = optim.make(rule, model.abstract(), steps=10)
    step = make_step(language_model_loss(model), optimizer)

    def begin() -> State:
        params = model.init(jax.random.key(0))
        return State(jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.random.key(1))

    tokens = jax.ShapeDtypeStruct((4, 512), jnp.int32)
    mask = jax.ShapeDtypeStruct((4, 512), jnp.float32)
    batch = {"tokens": tokens, "targets": tokens, "loss_mask": mask}
    return jax.jit(step.update).lower(jax.eval_shape(begin), None, batch)


def seconds_to_compile(layers: int, width: int) -> float:
    """Time of compilation alone, with nothing kept from before."""
    jax.clear_caches()
    program = lowered(layers, width)
    start = time.perf_counter()
    program.compile()
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    args = common.arguments(__doc__ or "", repeats=2, width=768)
    common.settings(width=args.width, batch="4 x 512", layers=DEPTHS, precision="bf16")
    use_cache("")
    times: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    for i in range(args.repeats):
        for depth in DEPTHS:
            times[depth].append(seconds_to_compile(depth, args.width))
        print(f"round {i + 1}: " + ", ".join(f"{d} layers {t[-1]:.2f} s" for d, t in times.items()), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if use_cache(folder) is None:
            raise RuntimeError(f"the compilation cache cannot be written to {folder}")
        filled = seconds_to_compile(DEPTHS[-1], args.width)
        warm = statistics.median(seconds_to_compile(DEPTHS[-1], args.width) for _ in range(args.repeats))
    print(f"{DEPTHS[-1]} layers: {filled:.2f} s into the cache, {warm:.2f} s out of it")
    deep, shallow = statistics.median(times[DEPTHS[-1]]), statistics.median(times[DEPTHS[0]])
    common.finish(depth_ratio_48_2=deep / shallow, warm_seconds=warm)


if __name__ == "__main__":
    main()
