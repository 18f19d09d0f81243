"""Completes text or chats with a model in the terminal, token by token as it comes.

    python -m experiments.generate gpt2 "Once upon a time" --temperature 0.8 --top-p 0.95
    python -m experiments.generate runs/base/decoder "def main(" --color
    python -m experiments.generate stories260K/checkpoint_v1.bin "Once upon a time" --max-new-tokens 200
    python -m experiments.generate path/to/chat-model --chat --system "Answer in one sentence."
    python -m experiments.generate large "In 1969" --draft small --gamma 5

A model is a Hugging Face folder or hub id, a folder of our own checkpoints, or a llama2.c file; its tokenizer is looked
for beside it, or given with --tokenizer. Without a prompt, prompts are read line by line. With --color, tokens are red
where the model found them unlikely and green where it was sure.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

# Also as `python experiments/generate.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.style import Style

from experiments.loading import Loaded, encode, load
from research.core import compilation, memory
from research.data.chat import CHATML
from research.data.templates import encode_chat_prompt
from research.decoding import Generation, Piece, Sampling, beam_search, generate, speculate
from research.decoding.prompts import context, has_encoder

KNOBS = {
    "temperature": "0 is greedy",
    "top_k": "keep the k most probable tokens",
    "top_p": "keep the most probable tokens with this much mass together",
    "min_p": "keep tokens at least this probable relative to the best",
    "typical_p": "keep the tokens of typical surprise with this much mass together",
    "epsilon": "keep tokens at least this probable",
    "eta": "the same, with a threshold that falls with the entropy",
    "top_h": "keep the most probable tokens with this share of the entropy",
    "repetition_penalty": "above 1, tokens seen before become less likely",
    "encoder_repetition_penalty": "above 1, tokens of the source become more likely",
    "no_repeat_ngram": "no n-gram of this size twice",
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", help="Hugging Face folder or hub id, folder of our checkpoints, or llama2.c file")
    add("prompt", nargs="?", help="the text to continue; without it, one prompt per line of the input")
    add("--tokenizer", help="tokenizer file or folder, or 'bytes' (default: beside the model)")
    add("--precision", default="f32", help="f32, bf16, ... (default f32)")
    add("--max-new-tokens", type=int, help="default 128, or what fits into the model")
    add("--min-new-tokens", type=int, default=0)
    add("--stop", action="append", default=[], help="a text that ends the answer; may be repeated")
    add("--seed", type=int, default=0)
    add("--samples", type=int, default=1, help="independent answers to each prompt")
    for name, text in KNOBS.items():
        kind = int if name in ("top_k", "no_repeat_ngram") else float
        add("--" + name.replace("_", "-"), type=kind, default=0.0 if name == "temperature" else None, help=text)
    add("--beams", type=int, default=1, help="beam search with this many beams (gives --samples of them)")
    add("--length-penalty", type=float, default=1.0)
    add("--early-stopping", choices=["true", "false", "never"], default="false")
    add("--draft", help="a smaller model for speculative decoding")
    add("--gamma", type=int, default=4, help="tokens it drafts per round")
    add("--chat", action="store_true", help="a conversation through the tokenizer's chat template")
    add("--system", help="system message of the chat")
    add("--template", help="file with a chat template, or 'chatml' (default: the tokenizer's)")
    add("--color", action="store_true", help="colour tokens by their probability")
    add("--quiet", action="store_true", help="no summary at the end")
    args = parser.parse_args(argv)
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    """Refuses options that would have no effect together."""
    clashes = [
        (args.beams > 1 and bool(args.draft), "--beams and --draft exclude each other"),
        (args.beams == 1 and (args.length_penalty != 1.0 or args.early_stopping != "false"),
         "--length-penalty and --early-stopping act with --beams above 1"),
        (args.seed != 0 and args.temperature == 0, "--seed acts when sampling: give a --temperature above 0"),
        (not args.draft and args.gamma != 4, "--gamma acts with --draft"),
        (not args.chat and bool(args.system or args.template), "--system and --template act with --chat"),
        (args.samples < 1 or args.beams < 1, "--samples and --beams must be at least 1"),
        (args.chat and args.samples > 1, "a chat has one answer: --samples must be 1"),
    ]  # fmt: skip
    for wrong, message in clashes:
        if wrong:
            raise ValueError(message)
    sampling(args)


class Printer:
    """Writes pieces as they come, coloured by probability if wished."""

    def __init__(self, console: Console, color: bool):
        self.console, self.color = console, color

    def __call__(self, piece: Piece) -> None:
        self.write(piece.text, piece.logprobs)

    def write(self, text: str, logprobs: Sequence[float] | None) -> None:
        style = None
        if self.color and logprobs:
            p = math.exp(sum(logprobs) / len(logprobs))
            style = Style(color=f"rgb({int(220 * (1 - p))},{int(60 + 130 * p)},60)")
        self.console.print(text, style=style, end="", markup=False, highlight=False, soft_wrap=True)
        self.console.file.flush()


def sampling(args: argparse.Namespace) -> Sampling:
    """The knobs of the command line."""
    return Sampling(**{name: getattr(args, name) for name in KNOBS})


def answer(args: argparse.Namespace, loaded: Loaded, draft: Loaded | None, ids: list[int], out: Printer) -> Generation:
    """One prompt's answers, streamed if there is one."""
    limit = context(loaded.model)
    start = 1 if has_encoder(loaded.model) else len(ids)
    room = 128 if limit is None else max(1, limit - start + 1)
    common: dict[str, Any] = {
        "max_new_tokens": args.max_new_tokens if args.max_new_tokens is not None else min(128, room),
        "min_new_tokens": args.min_new_tokens,
        "sampling": replace(sampling(args), suppress=loaded.unspoken, **loaded.forced),
        "stop_tokens": loaded.stops,
        "stop_strings": args.stop,
        "tokenizer": loaded.tokenizer,
    }
    if args.beams > 1:
        early = {"true": True, "false": False}.get(args.early_stopping, args.early_stopping)
        return beam_search(
            loaded.model, loaded.params, [ids], beams=args.beams, returned=args.samples,
            length_penalty=args.length_penalty, early_stopping=early, **common,
        )  # fmt: skip
    stream = out if args.samples == 1 else None
    common |= {"key": args.seed, "on_piece": stream}
    rows = [ids] * args.samples
    if draft is None:
        return generate(loaded.model, loaded.params, rows, **common)
    return speculate(loaded.model, loaded.params, draft.model, draft.params, rows, gamma=args.gamma, **common)


def show(args: argparse.Namespace, result: Generation, out: Printer) -> None:
    """What was not streamed, and one line of facts."""
    streamed = args.samples == 1 and args.beams == 1
    for row, text in enumerate(result.texts or []):
        if not streamed:
            score = "" if result.scores is None else f" (score {result.scores[row]:.3f})"
            out.console.print(
                f"{'' if row == 0 else chr(10)}[{row + 1}]{score} ", end="", markup=False, highlight=False
            )
            logprobs = result.logprobs[row, : result.lengths[row]].tolist() if result.logprobs is not None else None
            out.write(text, logprobs)
    out.console.print()
    if args.quiet:
        return
    facts = [f"{int(result.lengths.sum())} tokens", f"ended by {', '.join(sorted(set(result.reasons)))}"]
    if result.near_ties is not None and result.near_ties.sum():
        facts.append(f"{int(result.near_ties.sum())} near-ties, where rounding may decide")
    if result.acceptance_rate is not None:
        facts.append(f"{result.acceptance_rate:.0%} of the draft's tokens kept")
    Console(stderr=True).print(f"[dim]{' · '.join(facts)}[/]", highlight=False)


def lines(prompt: str | None, ask: str) -> Any:
    """The prompts: the one given, else lines of the input until it ends."""
    if prompt is not None:
        yield prompt
        return
    while True:
        try:
            yield input(ask if sys.stdin.isatty() else "")
        except EOFError:
            return


def run(args: argparse.Namespace, console: Console) -> None:
    """Loads what is named and answers every prompt."""
    loaded = load(args.model, args.tokenizer, args.precision)
    draft = load(args.draft, args.tokenizer, args.precision) if args.draft else None
    if draft is not None and draft.tokenizer.fingerprint != loaded.tokenizer.fingerprint:
        raise ValueError(f"{args.draft} and {args.model} have different tokenizers; a draft must share the model's")
    out = Printer(console, args.color)
    messages = [{"role": "system", "content": args.system}] if args.system else []
    template = CHATML if args.template == "chatml" else args.template and Path(args.template).read_text("utf-8")
    for text in lines(args.prompt, "you: " if args.chat else "prompt: "):
        if args.chat:
            messages.append({"role": "user", "content": text})
            ids = encode_chat_prompt(messages, loaded.tokenizer, template=template)
        else:
            ids = encode(loaded, text)
            if args.samples == 1 and args.beams == 1 and not has_encoder(loaded.model):
                console.print(text, end="", style="bold", markup=False, highlight=False, soft_wrap=True)
        result = answer(args, loaded, draft, ids, out)
        show(args, result, out)
        messages.append({"role": "assistant", "content": (result.texts or [""])[0]})


def main(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    """The exit code: 0, or 2 after one line that says what was wrong."""
    memory.keep_freed()
    compilation.use_cache()
    try:
        run(parse(argv), console or Console())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
