"""A LoRA step against a full step, and against the `peft` library: GPT-2 124M, rank 8 on all attention kernels.

    python tools/bench_peft.py [--steps 5] [--batch 4] [--length 512] [--layers 12] [--rank 8]

`lora_speed`: our full step over our LoRA step. `lora_memory`: peak memory of the two, each measured in a process of its
own. `vs_peft`: `peft` on PyTorch with bf16 autocast, compiled, over ours, alternating in one process; both adapt query,
key, value and output, base weights frozen. Theirs is the fused c_attn and c_proj at the same rank.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import bench_common as common
import jax
from bench_train import NO_DROPOUT, batch_of, ours

from research import weights
from research.core import tree
from research.core.compilation import use_cache
from research.models import build, preset
from research.models.config import ModelConfig
from research.recipes.pretrain import language_model_loss
from research.training import optim
from research.training.state import create
from research.training.step import make_step


def parse() -> argparse.Namespace:
    """The command line; defaults depend on the device."""
    gpu = jax.default_backend() == "gpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20 if gpu else 5)
    parser.add_argument("--batch", type=int, default=16 if gpu else 4)
    parser.add_argument("--length", type=int, default=1024 if gpu else 512)
    parser.add_argument("--layers", type=int, default=0, help="0: all layers of the model")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--memory-of", choices=("full", "lora"), help="only print the peak bytes of one step")
    return parser.parse_args()


def lora(config: ModelConfig, batch: dict[str, Any], rank: int) -> tuple[Callable[[], Any], int]:
    """A function that runs one LoRA step to its end, and the number of trained weights."""
    model = build(config, policy="bf16", unroll=True)
    recipe = {"method": "lora", "rank": rank, "target": r".*/attention/(q|k|v|o)/kernel"}
    make = lambda: weights.attach(model.init(jax.random.key(0)), recipe, jax.random.key(2))  # noqa: E731
    shapes = jax.eval_shape(make)
    mask = weights.trainable(shapes, recipe)
    rule = {"name": "adamw", "learning_rate": 1e-4, "schedule": "constant", "weight_decay": 0.1, "clip": 1.0}
    optimizer = optim.make(rule, tree.split(shapes, mask)[0], steps=1000)
    state, frozen = create(make, optimizer, rng=jax.random.key(1), trainable=mask)
    # The base never changes: it is kept in the type that the products read.
    frozen = jax.tree.map(lambda w: w.astype(model.policy.compute), frozen)
    step = make_step(language_model_loss(model), optimizer)
    held = [state]

    def run() -> float:
        held[0], metrics = step(held[0], frozen, batch)
        jax.block_until_ready(held[0])
        return float(metrics["loss"])

    return run, tree.count(state.params)


def theirs(config: ModelConfig, batch: dict[str, Any], rank: int) -> Callable[[], Any]:
    """The same step with `peft`, compiled, in bf16 autocast."""
    import peft
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    shape = GPT2Config(
        n_layer=config.n_layers, n_embd=config.d_model, n_head=config.n_heads, n_positions=config.max_length,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    wanted = peft.LoraConfig(
        r=rank, lora_alpha=16, target_modules=["c_attn", "attn.c_proj"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    model: Any = peft.get_peft_model(GPT2LMHeadModel(shape), wanted).to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.1, fused=True)
    tokens = torch.from_numpy(batch["tokens"]).long().to(device)
    targets = torch.from_numpy(batch["targets"]).long().to(device)

    def loss_of(tokens: Any, targets: Any) -> Any:
        logits = model(input_ids=tokens).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    forward = torch.compile(loss_of)

    def run() -> float:
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = forward(tokens, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return float(loss.detach())

    return run


def memory(kind: str) -> int:
    """Peak bytes of one kind of step, in a fresh process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", kind]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(json.loads(out.splitlines()[-1])["peak_bytes"])


def main() -> None:
    """Measures and prints."""
    args = parse()
    use_cache()
    config = preset("gpt2").replace(**NO_DROPOUT)
    config = config.replace(n_layers=args.layers) if args.layers else config
    batch = batch_of(config, args.batch, args.length)
    if args.memory_of:
        step, _ = ours(config, batch, "none") if args.memory_of == "full" else lora(config, batch, args.rank)
        step()
        print(json.dumps({"peak_bytes": common.peak_bytes(step)}))
        return
    common.settings(model=f"GPT-2, {config.n_layers} layers", batch=f"{args.batch} x {args.length}", rank=args.rank)
    bytes_of = {kind: memory(kind) for kind in ("full", "lora")}
    full, total = ours(config, batch, "none")
    small, trained = lora(config, batch, args.rank)
    runs = {"full_bf16": full, "lora_bf16": small, "peft_bf16": theirs(config, batch, args.rank)}
    seconds = common.alternate(runs, args.steps, warm=4)
    for name, value in common.medians(seconds).items():
        print(f"{name}: median {value:.3f} s a step, {args.batch * args.length / value:.0f} tokens/s")
    peaks = ", ".join(f"{kind} {size / 2**30:.2f} GiB" for kind, size in bytes_of.items())
    print(f"trained: {trained:,} of {total:,} weights; peak memory of a step: {peaks}")
    common.finish(
        lora_speed=common.ratio(seconds, "lora_bf16", "full_bf16"),
        lora_memory=bytes_of["lora"] / bytes_of["full"],
        vs_peft=common.ratio(seconds, "lora_bf16", "peft_bf16"),
    )


if __name__ == "__main__":
    main()
