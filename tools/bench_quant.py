"""Int8 against float: GPT-2 124M, greedy decoding at batch 1 and reading of prompts, ours and two peers.

    python tools/bench_quant.py [--tokens 64] [--prompt 32] [--batch 8] [--length 256] [--repeats 5]

All sides hold the same random weights (speed does not depend on them). Ours in int8 is "int8_dynamic" on all matrices
and the table: weights and activations in eight bits inside products; elsewhere float32 in decoding, bf16 in reading.
Peers that decode are `transformers` in float32 and bf16, and llama.cpp in BF16 and Q8_0 (see bench_llamacpp.py),
whose key is null where it cannot be imported. Times of decoding include reading its prompt.

A floor is the time that the weights' bytes take at the rate at which memory streams, or a prompt's operations at the
rate of the best product of that type. On a machine that does other work, run it under `taskset -c 0`: the peers wait
for each other's threads in busy loops, and on cores they do not have to themselves they take twenty times as long.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import bench_common as common
import jax
import jax.numpy as jnp
import numpy as np
from bench_llamacpp import LlamaCpp, crash, write_gguf

from research.core import tree
from research.core.compilation import use_cache
from research.decoding.generate import generate, prepare
from research.interop.hf import save_pretrained
from research.models import build, preset
from research.ops.int8 import int8_product
from research.weights import attach

CONFIG = preset("gpt2")
INT8 = [{"method": "int8_dynamic"}, {"method": "int8_dynamic", "target": "embed/tokens/embedding"}]
Run = Callable[[], Any]


def parse() -> argparse.Namespace:
    """The command line."""
    return common.arguments(__doc__ or "", tokens=64, prompt=32, batch=8, length=256, repeats=5)


class Ours:
    """The model with weights and activations of these types."""

    def __init__(self, params: Any, policy: str, recipe: Any = None) -> None:
        self.model = build(CONFIG, policy=policy)
        self.params = prepare(self.model, attach(params, recipe, jax.random.key(0)) if recipe else params)
        self.bytes = tree.nbytes(self.params) - tree.nbytes(self.params["decoder"]["positions"])

    def run(self, prompts: Sequence[Sequence[int]], tokens: int) -> Run:
        """Runs `generate` to its end."""

        def run() -> Any:
            out = generate(self.model, self.params, prompts, max_new_tokens=tokens, logprobs=False)
            if [int(n) for n in out.lengths] != [tokens] * len(prompts):
                raise RuntimeError(f"expected {tokens} new tokens in each row, got {out.lengths}")
            return out

        return run

    def logits(self, prompt: Sequence[int]) -> np.ndarray:
        """Logits [V] after a prompt."""
        feed = {"tokens": jnp.asarray([prompt]), "segment_ids": jnp.ones((1, len(prompt)), jnp.int32)}
        feed["positions"] = jnp.arange(len(prompt))[None]
        last = self.model.apply(self.params, feed).hidden[:, -1]
        return np.asarray(self.model.logits(self.params, last))[0]


def transformers_runs(folder: Path, prompt: Sequence[int], tokens: int) -> dict[str, Run]:
    """`transformers.generate` in float32 and bf16."""
    import torch
    from transformers import GPT2LMHeadModel

    ids = torch.tensor([prompt])

    def side(dtype: Any) -> Run:
        model: Any = GPT2LMHeadModel.from_pretrained(folder, dtype=dtype).eval()
        limits = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}

        def run() -> Any:
            with torch.inference_mode():
                return model.generate(ids, attention_mask=torch.ones_like(ids), **limits)

        return run

    return {"transformers f32": side(torch.float32), "transformers bf16": side(torch.bfloat16)}


def llamacpp_runs(folder: Path, prompt: Sequence[int], tokens: int, expected: np.ndarray) -> dict[str, Run]:
    """llama.cpp in the types that it can run; says which it cannot, and refuses one that computes something else."""
    if missing := [name for name in ("llama_cpp", "gguf") if importlib.util.find_spec(name) is None]:
        print(f"llama.cpp is left out: cannot import {missing} (pip install llama-cpp-python gguf)")
        return {}
    runs = {}
    for kind in ("BF16", "Q8_0"):
        path = folder / f"{kind}.gguf"
        write_gguf(folder, path, kind)
        if how := crash(path):
            print(f"llama.cpp {kind} is left out: it ended with {how}")
            continue
        peer = LlamaCpp(path, len(prompt) + tokens)
        far = distance(peer.logits(prompt), expected)
        print(f"llama.cpp {kind}: logits of the prompt are {far:.4f} away from ours in float32")
        if far > 0.1:
            raise RuntimeError(f"llama.cpp {kind} computes another model: distance {far}")
        runs[f"llama.cpp {kind}"] = peer.greedy(prompt, tokens)
    return runs


def distance(x: np.ndarray, y: np.ndarray) -> float:
    """|x - y| / |y|."""
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


def fastest(seconds: Mapping[str, list[float]], side: str) -> str | None:
    """The run of a peer with the least median."""
    names = [name for name in seconds if name.startswith(side)]
    return min(names, key=common.medians(seconds).__getitem__) if names else None


def decode(params: Any, folder: Path, args: argparse.Namespace) -> dict[str, float | None]:
    """Batch 1: ratios, tokens per second, fraction of the floor."""
    (prompt,) = np.random.default_rng(1).integers(0, CONFIG.vocab_size, (1, args.prompt)).tolist()
    ours = {"f32": Ours(params, "f32"), "bf16": Ours(params, "pure_bf16"), "int8": Ours(params, "f32", INT8)}
    expected = ours["f32"].logits(prompt)
    print(
        f"ours int8: logits of the prompt are {distance(ours['int8'].logits(prompt), expected):.4f} away from float32"
    )
    runs = {name: side.run([prompt], args.tokens) for name, side in ours.items()}
    runs |= transformers_runs(folder, prompt, args.tokens)
    runs |= llamacpp_runs(folder, prompt, args.tokens, expected)
    seconds = common.alternate(runs, args.repeats)
    bandwidth = common.stream_rate()
    print(f"memory streams at {bandwidth / 1e9:.1f} GB/s")
    for name, value in common.medians(seconds).items():
        floor = ours[name].bytes * args.tokens / bandwidth if name in ours else None
        told = f", {floor / value:.2f} of the floor of {args.tokens / floor:.0f}" if floor else ""
        print(f"batch 1, {name}: {args.tokens / value:.1f} tokens/s{told}")
    ratio = lambda peer: peer and common.ratio(seconds, "int8", peer)  # noqa: E731
    return {
        "int8_vs_f32_decode": ratio("f32"),
        "int8_vs_transformers": ratio(fastest(seconds, "transformers")),
        "int8_vs_llamacpp": ratio(fastest(seconds, "llama.cpp")),
    }


def int8_rate(shapes: list[tuple[int, int, int]]) -> float:
    """Best operations per second of int8 [R, I] x [O, I] over these (R, I, O)."""
    rates = []
    for rows, inner, outer in shapes:
        x, w = jnp.ones((rows, inner), jnp.int8), jnp.ones((outer, inner), jnp.int8)
        product = jax.jit(int8_product)
        seconds = common.best_seconds(lambda: jax.block_until_ready(product(x, w)))  # noqa: B023
        rates.append(2 * rows * inner * outer / seconds)
    return max(rates)


def read(params: Any, args: argparse.Namespace) -> dict[str, float | None]:
    """A batch of prompts read up to the first new token: int8 against bf16, and the fraction of the floor."""
    prompts = np.random.default_rng(2).integers(0, CONFIG.vocab_size, (args.batch, args.length)).tolist()
    sides = {"bf16": Ours(params, "pure_bf16"), "int8": Ours(params, "pure_bf16", INT8)}
    seconds = common.alternate({name: side.run(prompts, 1) for name, side in sides.items()}, args.repeats)
    rows, D = args.batch * args.length, CONFIG.d_model
    shapes = [(rows, D, D), (rows, D, CONFIG.d_ff), (rows, CONFIG.d_ff, D)]
    rates = {"bf16": common.jax_product_rate(shapes), "int8": int8_rate(shapes)}
    layers = 2 * rows * CONFIG.n_layers * (4 * D * D + 2 * D * CONFIG.d_ff)
    attention = 2 * rows * CONFIG.n_layers * args.length * D  # causal: half of q kᵀ and of p v
    for name, value in common.medians(seconds).items():
        floor = layers / rates[name] + attention / rates["bf16"]
        print(
            f"prompts of {args.batch} x {args.length}, {name}: {rows / value:.0f} tokens/s, {floor / value:.2f} of the "
            f"floor of {rows / floor:.0f} (products at {rates[name] / 1e12:.2f}e12 operations/s)"
        )
    return {"int8_prefill_vs_bf16": common.ratio(seconds, "int8", "bf16")}


def main() -> None:
    """Measures and prints."""
    args = parse()
    use_cache()
    common.settings(model="GPT-2 124M", **vars(args))
    params = build(CONFIG).init(jax.random.key(0))
    keys = read(params, args)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(folder, CONFIG, params)
        keys |= decode(params, Path(folder), args)
    common.finish(**keys)


if __name__ == "__main__":
    main()
