"""Tuning a model on examples and scoring what it then answers: the same for decoders and encoder-decoders.

A part is one set of examples, {"prompt": ..., "completion": ...}, with held-out ones, metrics and answers without a
model. A cell tunes on the mixture of its parts and measures each of them.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from experiments.cells import names, picked, spread
from experiments.trial import linear_decay, train
from research import weights
from research.core.types import Params
from research.data.corpus import ends
from research.data.mixtures import Mixture, mixing_rates
from research.data.rows import PackedRows
from research.data.seq2seq import PairRows, cut, encode_pairs, encode_source
from research.data.sources import Batches, Rows, Stream, one_pass
from research.data.templates import encode_examples
from research.data.virtual import with_virtual
from research.decoding import generate, prepare
from research.decoding.prompts import has_encoder, shared_width
from research.evaluation import bleu, chrf, most_common, nearest, rouge, squad
from research.models import Model
from research.recipes.pretrain import language_model_loss
from research.report import plots, print_table
from research.training.evaluate import make_evaluate
from research.weights.prompts import virtual_ids

Examples = list[dict[str, str]]
Answers = Sequence[str]

# Figures in percent; no resampling here, because the spread over seeds is shown.
METRICS: dict[str, Callable[[Answers, Answers], float]] = {
    "BLEU": lambda mine, right: bleu(mine, right, samples=1).mean,
    "chrF": lambda mine, right: chrf(mine, right, samples=1).mean,
    **{
        f"ROUGE-{kind}": lambda mine, right, kind=f"rouge{kind}": (
            100 * rouge(mine, right, kinds=[kind], samples=1)[kind]["fmeasure"].mean
        )
        for kind in ("1", "2", "L")
    },
    "exact match": lambda mine, right: 100 * squad(mine, [[r] for r in right], samples=1)["exact match"].mean,
    "F1": lambda mine, right: 100 * squad(mine, [[r] for r in right], samples=1)["f1"].mean,
}


@dataclass(frozen=True)
class Part:
    """One set of examples.

    Attributes:
      train, dev: the examples. metrics: names in `METRICS`, the first one is drawn.
      baselines: {name: part -> an answer to every dev prompt}; what needs no training.
    """

    train: Examples
    dev: Examples
    metrics: tuple[str, ...]
    baselines: Mapping[str, Callable[["Part"], Answers]]


def common(part: Part) -> list[str]:
    """The most common training answer, to every prompt."""
    return [most_common([e["completion"] for e in part.train])] * len(part.dev)


def nearest_example(part: Part) -> list[str]:
    """The answer of the most similar training prompt."""
    prompts, completions = [e["prompt"] for e in part.train], [e["completion"] for e in part.train]
    return nearest(prompts, completions, [e["prompt"] for e in part.dev])


def scores(part: Part, answers: Answers) -> dict[str, float]:
    """Every metric of the part for answers to its dev prompts, in percent."""
    return {name: METRICS[name](answers, [e["completion"] for e in part.dev]) for name in part.metrics}


def rows_of(
    model: Model, examples: Examples, tokenizer: Any, settings: Mapping[str, Any], virtual: Sequence[int] = ()
) -> Rows:
    """Packed rows of `length` tokens (and `targets_length` for the decoder of two stacks).

    A decoder's examples that are too long are left out; what an encoder reads is cut, as in `answers`. The ids of a
    soft prompt come on top.
    """
    pad_id, length = tokenizer.pad_id or 0, settings["length"]
    if has_encoder(model):
        targets, ids = settings["targets_length"], {"decoder_start_id": model.config.decoder_start_id, "pad_id": pad_id}
        pairs = encode_pairs(examples, tokenizer, inputs_length=length, targets_length=targets, long="truncate")
        return PairRows(pairs, length + len(virtual), targets, virtual=virtual, **ids)
    # Separately, as generation continues an encoded prompt.
    coded = encode_examples(examples, tokenizer, max_length=length, long="drop", boundary="separate")
    return PackedRows([with_virtual(e, virtual) for e in coded], length + len(virtual), pad_id=pad_id)


def prompt_ids(model: Model, prompt: str, tokenizer: Any, settings: Mapping[str, Any]) -> list[int]:
    """A prompt as training showed it."""
    if has_encoder(model):
        return cut(encode_source(prompt, tokenizer), settings["length"])
    return tokenizer.encode(prompt, bos=ends(tokenizer, None, None)[0])


def answers(model: Model, params: Params, tokenizer: Any, prompts: Answers, settings: Mapping[str, Any]) -> list[str]:
    """Greedy answers of at most `max_new_tokens` tokens."""
    ids = [prompt_ids(model, prompt, tokenizer, settings) for prompt in prompts]
    return greedy(model, params, tokenizer, ids, settings["max_new_tokens"], settings["answer_batch"])


def greedy(
    model: Model,
    params: Params,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    done: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """The most probable tokens after every prompt up to the end token, as text; `done` is told how many are ready."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # so that a batch pads little
    ready, texts = prepare(model, params), [""] * len(prompts)
    options: dict[str, Any] = {"stop_tokens": (tokenizer.eos_id,), "width": shared_width(prompts, batch_size)}
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        # Full batches only: the last one repeats a prompt rather than compile another shape.
        padded = chosen + [chosen[-1]] * (batch_size - len(chosen))
        asked = [prompts[i] for i in padded]
        out = generate(model, ready, asked, max_new_tokens=max_new_tokens, logprobs=False, **options)
        for row, i in enumerate(chosen):
            texts[i] = tokenizer.decode([t for t in out.ids(row) if t != tokenizer.eos_id]).strip()
        done(len(chosen))
    return texts


def run_cell(
    settings: Mapping[str, Any],
    parts: Mapping[str, Part],
    method: Mapping[str, Any],
    seed: int,
    model: Model,
    base: Params,
    tokenizer: Any,
) -> dict[str, Any]:
    """Tunes the base, or fresh weights, on the mixture of the parts; scores, held-out losses and costs.

    `method`: `start` ("base" or "scratch"), `recipe` (of `research.weights`), `learning_rate`.
    """
    key, size = jax.random.key(seed), settings["batch_size"]
    start = base if method["start"] == "base" else jax.jit(model.init)(jax.random.fold_in(key, 0))
    recipe = method["recipe"]
    start = weights.attach(start, recipe, jax.random.fold_in(key, 1), config=model.config)
    rows_for = partial(rows_of, model, tokenizer=tokenizer, settings=settings, virtual=virtual_ids(start))
    rows = {name: rows_for(part.train) for name, part in parts.items()}
    sizes = {name: len(found) for name, found in rows.items()}
    streams = {name: Stream(rows[name], seed + i) for i, name in enumerate(sorted(rows))}
    source = Batches(Mixture(streams, mixing_rates(sizes), seed=seed), size)
    steps = max(1, round(settings["epochs"] * sum(sizes.values()) / size))
    loss_fn = language_model_loss(model)
    tuned, costs = train(
        loss_fn,
        start,
        linear_decay(method["learning_rate"], steps, clip=1.0),
        [source.batch(i) for i in range(steps)],
        jax.random.fold_in(key, 2),
        trainable=weights.trainable(start, recipe),
        policy=model.policy,
    )
    held = {n: list(one_pass(rows_for(part.dev), size)) for n, part in parts.items()}
    losses, ready = make_evaluate(loss_fn, held)(tuned), weights.merge(tuned)
    said = {n: answers(model, ready, tokenizer, [e["prompt"] for e in p.dev], settings) for n, p in parts.items()}
    return {
        "scores": {name: scores(part, said[name]) for name, part in parts.items()},
        "held_out": {name: losses[f"loss/{name}"] for name in parts},
        # Byte tokens in an order that is no text.
        "broken": {name: sum("\ufffd" in text for text in found) for name, found in said.items()},
        "answers": {name: found[:3] for name, found in said.items()},
        **costs,
    }


def baseline_cell(parts: Mapping[str, Part], baseline: str) -> dict[str, Any]:
    """Scores of answers without a model, of the parts that have this baseline."""
    having = {name: part for name, part in parts.items() if baseline in part.baselines}
    return {"scores": {name: scores(part, part.baselines[baseline](part)) for name, part in having.items()}}


def check(methods: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses methods that cannot be run, before any work."""
    for name, method in methods.items():
        if method["start"] not in ("base", "scratch"):
            raise ValueError(f"method {name!r} starts from {method['start']!r}; have ['base', 'scratch']")
        weights.parse(method["recipe"])


def report(results: Sequence[Mapping[str, Any]], parts: Mapping[str, Part], path: Path, console: Console) -> None:
    """A table of every part (mean and spread over seeds), three answers beside the right ones, and the figure."""
    groups: dict[str, dict[str, float]] = {}
    for name, part in parts.items():
        mine = [r for r in results if name in r["scores"]]
        rows, groups[name] = [], {}
        for method in names(mine, "method"):
            found = picked(mine, method=method)
            values = {metric: [r["scores"][name][metric] for r in found] for metric in part.metrics}
            row = [method, *(spread(values[metric], 1) for metric in part.metrics)]
            if "held_out" in found[0]:
                took = f"{1000 * statistics.median(r['seconds'] for r in found):.0f} ms"
                row += [spread([r["held_out"][name] for r in found]), f"{found[0]['trainable']:,}", took]
            rows.append(row + [""] * (len(part.metrics) + 4 - len(row)))
            group = "best baseline" if method in part.baselines else method
            mean = statistics.mean(values[part.metrics[0]])
            groups[name][group] = max(mean, groups[name].get(group, mean))
        seeds = max(len(picked(mine, method=method)) for method in names(mine, "method"))
        title = f"{name}: {len(part.train)} examples, {len(part.dev)} held out; %, {seeds} seeds"
        header = ["method", *part.metrics, "held-out loss", "trainable", "a step"]
        print_table(title, header, rows, console=console)
        for i, example in enumerate(part.dev[:3]):
            console.print(f"  right: {example['completion']!r}", markup=False, highlight=False)
            for r in mine:
                if "answers" in r and r["seed"] == mine[0]["seed"]:
                    console.print(f"    {r['method']}: {r['answers'][name][i]!r}", markup=False, highlight=False)
    drawn = plots.bars(groups, y_label="first metric of each table, %", size=(2.2 + 1.6 * len(groups), 3.6))
    console.print(f"The figure: [bold]{plots.save(drawn, path)}[/]", soft_wrap=True)
