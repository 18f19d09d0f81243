"""Greedy decoding against `transformers.generate`: GPT-2 124M, a prompt of 32 tokens, batch 1 and 8, f32 and bf16.

    python tools/bench_decode.py [--tokens 64] [--prompt 32] [--repeats 3]

Both sides hold weights in the precision named, read the same prompts and produce exactly `--tokens` new tokens; the
time includes reading the prompt. `bandwidth_fraction` is the bytes of weights read for a token at batch 1 in float32
times tokens per second, over the rate at which this machine streams a large matrix. On a GPU the batch is 1 and 64
and the model GPT-2 1.5B unless --size small is given.
"""

import argparse
from collections.abc import Callable
from typing import Any

import bench_common as common
import jax
import numpy as np

from research.core import tree
from research.core.compilation import use_cache
from research.decoding.generate import generate, prepare
from research.models import build, preset

POLICIES = {"f32": "f32", "bf16": "pure_bf16"}


def parse() -> argparse.Namespace:
    """The command line; defaults depend on the device."""
    gpu = jax.default_backend() == "gpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=256 if gpu else 64)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", choices=("small", "xl"), default="xl" if gpu else "small", help="GPT-2 124M, or 1.5B")
    return parser.parse_args()


def main() -> None:
    """Measures and prints."""
    args = parse()
    use_cache()
    common.settings(model=f"GPT-2 {args.size}", prompt=args.prompt, new_tokens=args.tokens, sampling="greedy")
    keys: dict[str, float | None] = {}
    bandwidth = common.stream_rate()
    print(f"memory streams at {bandwidth / 1e9:.1f} GB/s")
    for precision in ("f32", "bf16"):
        sides = Sides(args.size, precision)
        for batch in (1, 8):
            prompts = np.random.default_rng(batch).integers(0, 50_257, (batch, args.prompt)).tolist()
            runs = {"ours": sides.ours(prompts, args.tokens), "transformers": sides.theirs(prompts, args.tokens)}
            seconds = common.alternate(runs, args.repeats)
            rates = {name: batch * args.tokens / s for name, s in common.medians(seconds).items()}
            print(f"batch {batch}, {precision}: " + ", ".join(f"{n} {rate:.1f} tokens/s" for n, rate in rates.items()))
            keys[f"batch{batch}_{precision}"] = common.ratio(seconds, "ours", "transformers")
            if batch == 1 and precision == ("bf16" if jax.default_backend() == "gpu" else "f32"):
                keys["bandwidth_fraction"] = sides.bytes_per_token * rates["ours"] / bandwidth
    common.finish(**keys)


class Sides:
    """One model in one precision, ours and theirs (random weights: speed does not depend on them)."""

    def __init__(self, size: str, precision: str) -> None:
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel

        config = preset("gpt2" if size == "small" else "gpt2-xl")
        self.model = build(config, policy=POLICIES[precision])
        params = self.model.init(jax.random.key(0))
        self.device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        shape = GPT2Config(
            n_layer=config.n_layers, n_embd=config.d_model, n_head=config.n_heads, n_positions=config.max_length
        )
        peer: Any = GPT2LMHeadModel(shape)
        peer = peer.to(self.device, torch.bfloat16 if precision == "bf16" else torch.float32).eval()
        self.peer = peer
        positions = config.max_length * config.d_model * params["embed"]["tokens"]["embedding"].dtype.itemsize
        self.bytes_per_token = tree.nbytes(params) - positions
        self.params = prepare(self.model, params)

    def ours(self, prompts: list[list[int]], tokens: int) -> Callable[[], Any]:
        """Runs `generate` to its end."""

        def run() -> Any:
            out = generate(self.model, self.params, prompts, max_new_tokens=tokens, logprobs=False)
            if [int(n) for n in out.lengths] != [tokens] * len(prompts):
                raise RuntimeError(f"expected {tokens} new tokens in each row, got {out.lengths}")
            return out

        return run

    def theirs(self, prompts: list[list[int]], tokens: int) -> Callable[[], Any]:
        """Runs `transformers.generate` to its end."""
        import torch

        ids = torch.tensor(prompts, device=self.device)
        attended = torch.ones_like(ids)

        def run() -> Any:
            with torch.inference_mode():
                out = self.peer.generate(
                    ids,
                    attention_mask=attended,
                    max_new_tokens=tokens,
                    min_new_tokens=tokens,
                    do_sample=False,
                    pad_token_id=0,
                )
            return out.cpu()

        return run


if __name__ == "__main__":
    main()
