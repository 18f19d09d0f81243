"""Preference fine-tuning against PyTorch: an iteration of PPO and a step of DPO on GPT-2 124M, all weights trained.

    python tools/bench_rl.py [--repeats 3] [--rollouts 64] [--new-tokens 64] [--epochs 4] [--pairs 8] [--policy bf16]
    python tools/bench_rl.py --tiny    # a model of two small layers: does it run?

`ppo_vs_torch`: a plain loop around `transformers.generate` (`bench_rl_torch.Loop`) over ours. An iteration samples,
scores the text with a Python function, reads policy, values and a frozen copy, and makes epochs of minibatches of AdamW
updates. `dpo_vs_trl`: trl's DPOTrainer over ours, on the same pairs, beside a frozen copy. Both sides start from the
same random weights and alternate in one process; the peers compute in bf16 autocast, compiled unless --eager. Before
anything is timed the first batch must give the same log-probabilities, values, losses and gradient norms on both sides.
`ppo_fraction` and `dpo_fraction` are model FLOPs per second over the fastest bf16 product on the shapes of the step.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import bench_common as common
import datasets
import jax
import numpy as np
import tokenizers
import torch
import transformers
from bench_rl_torch import Direct, How, Loop
from bench_train import NO_DROPOUT

from research.core import tree
from research.core.compilation import use_cache
from research.data.huggingface_tokenizer import HuggingFaceTokenizer
from research.data.preference_rows import PreferenceRows, encode_preferences
from research.data.sources import stack
from research.interop import save_pretrained
from research.models import Model, build, preset
from research.recipes.dpo import preference_loss, with_copy
from research.recipes.ppo import PPO, ActorCritic, ppo_loss, worth
from research.recipes.ppo_run import Schedule, Trainer, whole
from research.recipes.rollouts import Writer
from research.training import optim
from research.training.state import create
from research.training.step import make_step

TINY = {"n_layers": 2, "d_model": 64, "n_heads": 4, "n_kv_heads": 4, "d_ff": 256, "vocab_size": 512, "max_length": 64}
BETA, RATE = 0.1, 1e-5
# Of log-probabilities and values: the mean difference of a token. Of losses and norms: relative.
CLOSE = {"bf16": (2e-2, 3e-2), "f32": (1e-4, 1e-3)}


def parse() -> argparse.Namespace:
    """The command line; --tiny changes the defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--eager", action="store_true", help="the peers are not compiled")
    parser.add_argument("--policy", choices=tuple(CLOSE), default="bf16")
    tiny = parser.parse_known_args()[0].tiny
    sizes = {"repeats": (3, 1), "rollouts": (64, 8), "minibatch": (16, 4), "epochs": (4, 2)}
    sizes |= {"prompt": (32, 8), "new-tokens": (64, 8), "pairs": (8, 2), "length": (128, 24)}
    for name, values in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=values[tiny])
    return parser.parse_args()


def words(size: int) -> tokenizers.Tokenizer:
    """One word for each id: text to score, and the same tokens back."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return made


def reward(prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
    """The share of words that end in 7."""
    return [sum(word.endswith("7") for word in answer.split()) / len(answer.split()) for answer in answers]


@dataclass(frozen=True)
class Both:
    """What the two sides share: sizes, model, weights of policy and reference, and their folders for the peers."""

    args: argparse.Namespace
    model: Model
    params: Any
    reference: Any
    folders: tuple[Path, Path]
    how: How

    @classmethod
    def make(cls, args: argparse.Namespace, scratch: Path) -> "Both":
        """Weights from fixed seeds, those of the reference from another one than the policy's."""
        config = preset("gpt2").replace(**NO_DROPOUT, **(TINY if args.tiny else {}))
        model = build(config, policy=args.policy, unroll=True)
        params, reference = (model.init(jax.random.key(seed)) for seed in (0, 1))
        folders = scratch / "policy", scratch / "reference"
        for folder, weights in zip(folders, (params, reference), strict=True):
            save_pretrained(folder, config, weights)
        device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        how = How(device, args.policy == "bf16", not (args.eager or args.tiny), RATE)
        return cls(args, model, params, reference, folders, how)

    def agree(self, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
        """Prints how far the sides are apart on the first batch; refuses to time different computations."""
        for name, mine in ours.items():
            a, b = np.asarray(mine, np.float64), np.asarray(theirs[name], np.float64)
            gap, most = float(np.abs(a - b).mean()), CLOSE[self.args.policy][a.ndim == 0] * (1 if a.ndim else abs(b))
            print(f"{name}: mean {a.mean():.6g} and {b.mean():.6g}, mean difference {gap:.2g}", flush=True)
            if not gap <= most:
                raise RuntimeError(
                    f"the {name} of both sides differ by {gap:.3g} on average; rounding is below {most:.3g}"
                )

    def optimizer(self, learning: Any) -> optim.Optimizer:
        """AdamW as the peers have it."""
        rule = {"name": "adamw", "learning_rate": RATE, "schedule": "constant", "weight_decay": 0.0, "clip": 1.0}
        return optim.make({**rule, "b2": 0.999}, learning, steps=10_000)

    def flops(self, rows: int, positions: int, predicted: int) -> float:
        """Of one forward pass: 2 for each weight and token, the output table's where a token is predicted."""
        config = self.model.config
        table, spread = config.vocab_size * config.d_model, config.max_length * config.d_model
        inner = tree.count(self.params) - table - spread
        attention = 2 * config.n_layers * positions**2 * config.d_model
        return rows * (2 * inner * positions + 2 * table * predicted + attention)


def ppo_sides(both: Both) -> dict[str, Callable[[], Any]]:
    """One iteration of either side, after both have been compared on ours' first rollout."""
    args, model = both.args, both.model
    text = HuggingFaceTokenizer(words(model.config.vocab_size))
    prompts = np.random.default_rng(0).integers(0, model.config.vocab_size, (args.rollouts, args.prompt)).tolist()
    ppo, plan = PPO(), Schedule(10_000, args.rollouts, args.minibatch, args.epochs)
    pair = ActorCritic(model, "copy")
    params = pair.begin(both.params, reference=both.reference)
    head = params["value"]["head"]["output"]
    head["kernel"] = 0.02 * jax.random.normal(jax.random.key(2), head["kernel"].shape)
    learns = pair.learns(params)
    optimizer = both.optimizer(tree.split(params, learns)[0])
    state, frozen = create(params, optimizer, rng=jax.random.key(3), trainable=learns)
    writer = Writer(model, text, args.prompt, args.new_tokens, stops=())
    step = make_step(ppo_loss(pair, ppo), optimizer)
    trainer = Trainer(pair, ppo, writer, reward, prompts, step, plan)
    loop = Loop(both.folders, jax.device_get(head), ppo, plan, args.new_tokens, both.how)
    held = [compare_ppo(both, trainer, state, frozen, loop), 0]

    def ours() -> float:
        held[0], facts, _ = trainer.iterate(held[0], frozen, held[1], plan.kl_coefficient)
        held[1] += 1
        return facts["score"]

    return {"ours": ours, "torch_loop": lambda: loop.iterate(prompts, text.decode, reward)}


def compare_ppo(both: Both, trainer: Trainer, state: Any, frozen: Any, loop: Loop) -> Any:
    """Both sides read and learn from the same answers; the state after the update."""
    first, plan = both.args.prompt - 1, trainer.schedule
    params = whole(state, frozen)
    rollout = trainer.rollout(params, 0)
    if rollout.lengths.min() < both.args.new_tokens:
        raise RuntimeError(f"expected {both.args.new_tokens} new tokens in each row, got {rollout.lengths}")
    read = trainer.read(params, rollout.batch)
    batch = rollout.batch
    tokens = torch.tensor(np.concatenate([batch["tokens"], batch["targets"][:, -1:]], 1)).long().to(both.how.device)
    found = loop.read(tokens)
    names = "logprobs", "values", "reference"
    both.agree(
        {name: x[:, first:] for name, x in zip(names, read, strict=True)},
        {name: x.cpu() for name, x in zip(names, found, strict=True)},
    )
    scores = np.asarray(reward(rollout.prompts, rollout.answers), np.float32)
    said, _ = worth(trainer.ppo, scores, read[0], read[2], read[1], batch["loss_mask"], plan.kl_coefficient)
    advantages, returns = loop.worth(torch.tensor(scores, device=both.how.device), *found)
    part = slice(plan.minibatch)
    loss, norm = loop.update(*(x[part] for x in (tokens, found[0], found[1], advantages, returns)))
    state, metrics = trainer.step(state, frozen, {name: x[part] for name, x in (batch | said).items()})
    ours = {"advantages": said["advantages"][:, first:], "returns": said["returns"][:, first:]}
    ours |= {"loss": metrics["loss"], "gradient norm": metrics["grad_norm"]}
    theirs = {"advantages": advantages.cpu(), "returns": returns.cpu(), "loss": loss, "gradient norm": norm}
    both.agree(ours, theirs)
    return state


def dpo_sides(both: Both) -> dict[str, Callable[[], Any]]:
    """One step of either side, after both have been compared on their first."""
    args, model = both.args, both.model
    made, end = words(model.config.vocab_size), f"w{model.config.vocab_size - 1}"
    half = args.length // 2
    ids = np.random.default_rng(1).integers(0, model.config.vocab_size - 1, (args.pairs, 3, half))
    said = [[" ".join(f"w{i}" for i in row) for row in pair] for pair in ids.tolist()]
    # The last word is the end token, which trl would append.
    pairs = [{"prompt": p, "chosen": f" {a} {end}", "rejected": f" {b} {end}"} for p, a, b in said]
    length = 2 * half + 1
    rows = PreferenceRows(encode_preferences(pairs, HuggingFaceTokenizer(made), length=length), length)
    batch = stack([rows.row(i) for i in range(args.pairs)])
    named = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words(model.config.vocab_size), eos_token=end, pad_token=end
    )
    peer = Direct(both.folders, named, pairs, BETA, both.how)
    read = peer.batch["input_ids"].numpy().reshape(2, args.pairs, -1).swapaxes(0, 1)
    if not np.array_equal(read, batch["tokens"]):
        raise RuntimeError("the two sides read other tokens")
    params, learns = with_copy(both.params, both.reference)
    optimizer = both.optimizer(tree.split(params, learns)[0])
    state, frozen = create(params, optimizer, rng=jax.random.key(3), trainable=learns)
    step = make_step(preference_loss(model, reference="copy", beta=BETA), optimizer)
    held = [state]

    def ours() -> dict[str, Any]:
        held[0], metrics = step(held[0], frozen, batch)
        jax.block_until_ready(held[0])
        return {"loss": metrics["loss"], "gradient norm": metrics["grad_norm"]}

    both.agree(ours(), dict(zip(("loss", "gradient norm"), peer.step(), strict=True)))
    return {"ours": ours, "trl": peer.step}


def main() -> None:
    """Measures and prints."""
    args = parse()
    use_cache()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as scratch:
        both = Both.make(args, Path(scratch))
        peers = "compiled" if both.how.compiled else "eager"
        common.settings(model=f"GPT-2, {both.model.config.n_layers} layers", precision=args.policy, peers=peers)
        d, d_ff = both.model.config.d_model, both.model.config.d_ff
        tokens = args.minibatch * (args.prompt + args.new_tokens - 1)
        shapes = [(tokens, d, d), (tokens, d, d_ff), (tokens, d_ff, d)]
        rate = max(common.jax_product_rate(shapes), common.torch_product_rate(shapes, both.how.device))
        print(f"best bf16 product: {rate / 1e9:.0f} GFLOP/s")
        keys: dict[str, float | None] = {}
        # An iteration reads each token three times (sampling, policy, reference) and learns from it at three times
        # the price in each epoch; a step of DPO reads it with the reference and learns.
        position = args.prompt + args.new_tokens - 1
        ppo = (3 + 3 * args.epochs) * both.flops(args.rollouts, position, args.new_tokens)
        dpo = 4 * both.flops(2 * args.pairs, args.length, args.length // 2 + 1)
        for name, sides, flops, per in (("ppo", ppo_sides, ppo, "iteration"), ("dpo", dpo_sides, dpo, "step")):
            runs = sides(both)
            ours, peer = runs
            seconds = common.alternate(runs, args.repeats)
            middle = common.medians(seconds)
            print(f"{name}: " + ", ".join(f"{side} {s:.3f} s" for side, s in middle.items()) + f" a {per} (medians)")
            keys |= {f"{name}_vs_{peer.split('_')[0]}": common.ratio(seconds, ours, peer)}
            keys |= {f"{name}_seconds": middle[ours], f"{name}_fraction": flops / middle[ours] / rate}
        common.finish(**keys)


if __name__ == "__main__":
    main()
