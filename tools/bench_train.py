"""A training step against PyTorch: GPT-2 124M, forward, backward, clipping and AdamW, dropout off on both sides.

    python tools/bench_train.py [--steps 5] [--batch 4] [--length 512] [--layers 12]

Ours and the peers (`transformers` eager in float32; `torch.compile` with bf16 autocast) alternate in one process. On
a CPU the batch is 4 x 512; on a GPU 16 x 1024, and `mfu` is added (with --size xl: about 1.5B, where it fits).
`matmul_fraction` is model FLOPs per second (6 N per token + causal attention) over the best bf16 product of this
machine on the shapes of the step, in JAX or PyTorch, whichever is faster.
"""

import argparse
from collections.abc import Callable
from typing import Any

import bench_common as common
import jax
import numpy as np

from research.core import tree
from research.core.compilation import use_cache
from research.models import build, preset
from research.models.config import ModelConfig
from research.recipes.pretrain import language_model_loss
from research.training import optim
from research.training.state import create
from research.training.step import make_step

NO_DROPOUT = {"embed_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0}
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s as published."""


def parse() -> argparse.Namespace:
    """The command line; defaults depend on the device."""
    gpu = jax.default_backend() == "gpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20 if gpu else 5)
    parser.add_argument("--batch", type=int, default=16 if gpu else 4)
    parser.add_argument("--length", type=int, default=1024 if gpu else 512)
    parser.add_argument("--layers", type=int, default=0, help="0: all layers of the model")
    parser.add_argument("--size", choices=("small", "xl"), default="small", help="GPT-2 124M, or 1.5B")
    return parser.parse_args()


def batch_of(config: ModelConfig, rows: int, length: int) -> dict[str, np.ndarray]:
    """Random tokens and their successors, all supervised."""
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (rows, length + 1)).astype(np.int32)
    mask = np.ones((rows, length), np.float32)
    return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "loss_mask": mask}


def ours(config: ModelConfig, batch: dict[str, np.ndarray], remat: str) -> tuple[Callable[[], Any], int]:
    """A function that runs one step to its end, and the number of weights."""
    model = build(config, policy="bf16", unroll=True, remat=remat)
    rule = {"name": "adamw", "learning_rate": 1e-4, "schedule": "constant", "weight_decay": 0.1, "clip": 1.0}
    optimizer = optim.make(rule, model.abstract(), steps=1000)
    state, frozen = create(lambda: model.init(jax.random.key(0)), optimizer, rng=jax.random.key(1))
    step = make_step(language_model_loss(model), optimizer)
    held = [state]

    def run() -> float:
        held[0], metrics = step(held[0], frozen, batch)
        jax.block_until_ready(held[0])
        return float(metrics["loss"])

    return run, tree.count(state.params)


def theirs(config: ModelConfig, batch: dict[str, np.ndarray], *, compiled: bool) -> Callable[[], Any]:
    """The same step in PyTorch, on the same device."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    shape = GPT2Config(
        n_layer=config.n_layers,
        n_embd=config.d_model,
        n_head=config.n_heads,
        n_positions=config.max_length,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
    )
    model: Any = GPT2LMHeadModel(shape).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
    tokens = torch.from_numpy(batch["tokens"]).long().to(device)
    targets = torch.from_numpy(batch["targets"]).long().to(device)

    def loss_of(tokens: Any, targets: Any) -> Any:
        logits = model(tokens).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    forward = torch.compile(loss_of) if compiled else loss_of

    def run() -> float:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=compiled):
            loss = forward(tokens, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss)

    return run


def model_flops(config: ModelConfig, weights: int, rows: int, length: int) -> float:
    """6 N per token for the products with weights, and 3 · 4 · T²/2 · D per layer and row for causal attention."""
    positions = config.max_length * config.d_model
    attention = 6 * config.n_layers * rows * length**2 * config.d_model
    return 6 * (weights - positions) * rows * length + attention


def main() -> None:
    """Measures and prints."""
    args = parse()
    use_cache()
    config = preset("gpt2" if args.size == "small" else "gpt2-xl").replace(**NO_DROPOUT)
    config = config.replace(n_layers=args.layers) if args.layers else config
    batch = batch_of(config, args.batch, args.length)
    common.settings(model=f"GPT-2, {config.n_layers} layers", batch=f"{args.batch} x {args.length}", dropout="off")
    step, weights = ours(config, batch, "none" if args.size == "small" else "full")
    step()
    peak = common.peak_bytes(step)
    runs = {
        "ours_bf16": step,
        "eager_f32": theirs(config, batch, compiled=False),
        "compiled_bf16": theirs(config, batch, compiled=True),
    }
    seconds = common.alternate(runs, args.steps, warm=4)
    middle = common.medians(seconds)
    tokens = args.batch * args.length
    d = config.d_model
    shapes = [(tokens, d, d), (tokens, d, config.d_ff), (tokens, config.d_ff, d)]
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    rates = {"jax": common.jax_product_rate(shapes), "torch": common.torch_product_rate(shapes, device)}
    flops = model_flops(config, weights, args.batch, args.length) / middle["ours_bf16"]
    for name, value in middle.items():
        print(f"{name}: median {value:.3f} s a step, {tokens / value:.0f} tokens/s")
    print("best bf16 product: " + ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items()))
    print(f"ours: {flops / 1e9:.0f} model GFLOP/s; peak memory of a step {peak / 2**30:.2f} GiB")
    keys = {
        "vs_eager_f32": common.ratio(seconds, "ours_bf16", "eager_f32"),
        "vs_compiled_bf16": common.ratio(seconds, "ours_bf16", "compiled_bf16"),
        "matmul_fraction": flops / max(rates.values()),
        "peak_bytes": peak,
    }
    if device == "cuda":
        kind = next((name for name in PEAK if name in jax.devices()[0].device_kind), None)
        keys["mfu"] = flops / PEAK[kind] if kind else None
    common.finish(**keys)


if __name__ == "__main__":
    main()
