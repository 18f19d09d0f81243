"""Teachers and their smaller students, a pair of each family: how a student begins, what it reads, how it is judged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments.answering import Part, answers, rows_of, scores
from experiments.cells import Cell
from experiments.labelled import batches_of, read_task
from experiments.loading import encoder_folder, load
from experiments.sentiment import made_once, tuned
from experiments.texts import multi30k
from experiments.trial import linear_decay, train
from research.core import tree
from research.core.types import Array, Params
from research.data import load_tokenizer
from research.data.rows import ArrayRows
from research.data.sources import Batches, Rows, Stream, one_pass
from research.decoding import generate
from research.decoding.sample import Sampling
from research.interop import load_pretrained
from research.interop.run import save_run
from research.models import Model, build
from research.recipes.classify import accuracy
from research.recipes.distill import beside_teacher, distillation_loss
from research.recipes.pretrain import language_model_loss
from research.recipes.rollouts import Writer
from research.recipes.samples import OnPolicy, teacher_writes
from research.recipes.stored_teacher import WithTeacher, store_teacher
from research.training.evaluate import make_evaluate
from research.weights.slim import slim

BatchOf = Callable[[int, Params], Mapping[str, np.ndarray]]
"""(step, the student's weights) -> a batch."""


@dataclass(frozen=True)
class Family:
    """A teacher and a student of it.

    Attributes:
      start: key -> the student's weights before training. steps: of its training.
      batches: (method, seed) -> the batch of every step. score: (model, weights) -> figures, higher and lower ones.
    """

    teacher: Model
    params: Params
    student: Model
    start: Callable[[Array], Params]
    steps: int
    batches: Callable[[Mapping[str, Any], int], BatchOf]
    score: Callable[[Model, Params], dict[str, float]]


def encoder(config: Mapping[str, Any], root: Path, workdir: Path, console: Console) -> Family:
    """MiniLM tuned on SST-2; the student begins as some of its layers."""
    settings = config["encoder"]
    folder = encoder_folder(settings["model"])
    tokenizer, (described, body, _) = load_tokenizer(folder), load_pretrained(folder, head="none")
    described = described.replace(head="sequence", pooling="first", head_dense=False, n_labels=2)
    rows, unseen = settings["rows"], settings["unseen_rows"]
    read = read_task("sst2", root, tokenizer, max(settings["lengths"]), rows + unseen, settings["dev_rows"])
    kept, lessons = workdir / "teacher_encoder", read["train"][:rows]

    def tune() -> dict[str, Any]:
        _, params, costs = tuned(described, body, lessons, settings)
        save_run(kept, described, params)
        return costs

    params = made_once(Cell({"made": "teacher encoder"}, settings, tune), kept, workdir, console)[1]
    model = build(described, policy=settings["policy"])
    fewer, begin = slim(described, params, layers=settings["without"])
    held = {"dev": read["dev"], "unseen phrases": read["train"][rows:]}
    held = {name: batches_of(part, settings, [], None) for name, part in held.items()}

    def batches(method: Mapping[str, Any], seed: int) -> BatchOf:
        rng = np.random.default_rng(seed)
        every = [b for _ in range(settings["epochs"]) for b in batches_of(lessons, settings, [], rng)]
        return lambda step, _: every[step]

    return Family(
        model,
        params,
        build(fewer, policy=settings["policy"]),
        lambda key: begin,
        settings["epochs"] * (len(lessons) // settings["batch_size"]),
        batches,
        lambda m, p: {name: 100 * accuracy(m, p, part)[0] for name, part in held.items()},
    )


def decoder(config: Mapping[str, Any], root: Path, workdir: Path, console: Console) -> Family:
    """A story writer, whose own samples at temperature 1 are the data, and a narrower and shallower one."""
    settings = config["decoder"]
    loaded = load(settings["model"] or str(root / "stories260K" / "checkpoint_v1.bin"), None, "f32")
    model, params = build(loaded.model.config), tree.stack(loaded.params)
    student = build(model.config.replace(**settings["student"]))
    bos, size = loaded.tokenizer.bos_id, settings["batch_size"]
    stops = tuple({i for i in (bos, loaded.tokenizer.eos_id) if i is not None})
    opening, length = settings["opening"], settings["length"]
    writer = partial(Writer, tokenizer=loaded.tokenizer, stops=stops)
    whole = writer(model, prompt_length=1, new_tokens=length)
    behind = writer(model, prompt_length=opening, new_tokens=length + 1 - opening)
    own = writer(student, prompt_length=opening, new_tokens=settings["answer"])

    @cache
    def stories(count: int, seed: int) -> ArrayRows:
        console.print(f"the teacher writes {count} stories")
        made = teacher_writes(whole, params, [[bos]] * count, temperature=1.0, seed=seed, batch_size=settings["group"])
        return ArrayRows(made)

    def openings() -> list[list[int]]:
        read = stories(settings["stories"], 1).arrays
        return [
            ids[: min(opening, on.sum())].tolist() for ids, on in zip(read["tokens"], read["segment_ids"], strict=True)
        ]

    @cache
    def best_endings() -> ArrayRows:
        """What a beam search of the teacher writes behind the openings, which are learned too."""
        console.print("the teacher writes the likeliest endings")
        prompts = openings()[: settings["endings"]]
        made = teacher_writes(behind, params, prompts, beams=settings["beams"], batch_size=settings["group"] // 4)
        return ArrayRows(made | {"loss_mask": (made["segment_ids"] > 0).astype(np.float32)})

    def batches(method: Mapping[str, Any], seed: int) -> BatchOf:
        rows: Rows = best_endings() if method["targets"] == "teacher" else stories(settings["stories"], 1)
        if method["stored"]:
            kept = workdir / f"stored_{method['stored']}"
            store_teacher(kept, model, params, rows, k=method["stored"], batch_size=size)
            rows = WithTeacher(rows, kept, teacher=tree.fingerprint(params))
        source = Batches(Stream(rows, seed), size)
        if not method["share"]:
            return lambda step, _: source.batch(step)
        mixed = OnPolicy(own, openings(), source.batch, method["share"], size, seed)
        return lambda step, weights: mixed.batch(weights, step)

    def score(m: Model, p: Params) -> dict[str, float]:
        held = list(one_pass(stories(settings["held_out"], 2), size))
        loss = distillation_loss(m, model, alpha=0.0, temperature=1.0)
        found = make_evaluate(loss, held)(beside_teacher(p, params)[0])
        return {
            "NLL": found["cross_entropy"],
            "KL": found["divergence"],
            "agreement": 100 * found["agreement"],
            "its stories' NLL": _read_by(model, params, m, p, bos, stops, settings),
        }

    return Family(model, params, student, jax.jit(student.init), settings["steps"], batches, score)


def _read_by(
    teacher: Model, params: Params, model: Model, own: Params, bos: int, stops: Sequence[int], settings: Mapping
) -> float:
    """How probable the teacher finds a token of stories that a model writes: -mean log p."""
    length, count = settings["length"], settings["group"]
    made = generate(
        model, own, [[bos]] * count, max_new_tokens=length, sampling=Sampling(temperature=1.0), stop_tokens=stops,
        key=7, logprobs=False,
    )  # fmt: skip
    new = np.arange(length) < made.lengths[:, None]
    told = np.concatenate([np.full((count, 1), bos, np.int32), made.tokens[:, :length]], axis=1)
    batch = {"tokens": told[:, :-1], "targets": told[:, 1:], "loss_mask": new.astype(np.float32)}
    return make_evaluate(language_model_loss(teacher), [batch])(params)["loss"]


def encoder_decoder(config: Mapping[str, Any], root: Path, workdir: Path, console: Console) -> Family:
    """A translator with half of its layers as the student; the teacher's architecture is that of a base model."""
    settings = config["encoder_decoder"]
    described, base, _ = load_pretrained(settings["base"])
    if described.kind != "encoder_decoder":
        raise ValueError(f"encoder_decoder.base is a model of kind {described.kind!r}; expected an encoder-decoder")
    tokenizer, model = load_tokenizer(settings["base"]), build(described, policy=settings["policy"])
    read = multi30k(root)
    part = Part(read["train"][: settings["rows"]], read["dev"][: settings["dev_rows"]], ("BLEU", "chrF"), {})
    rows, size, kept = (
        rows_of(model, part.train, tokenizer, settings),
        settings["batch_size"],
        workdir / "teacher_encdec",
    )
    steps, rate = max(1, round(settings["epochs"] * len(rows) / size)), settings["learning_rate"]

    def tune() -> dict[str, Any]:
        fresh = settings["start"] == "scratch"
        untaught, source = jax.jit(model.init)(jax.random.key(0)) if fresh else base, Batches(Stream(rows, 0), size)
        lessons, rule = [source.batch(i) for i in range(steps)], linear_decay(rate, steps, clip=1.0)
        made, costs = train(language_model_loss(model), untaught, rule, lessons, jax.random.key(1))
        save_run(kept, described, made)
        return costs

    origin = {**settings, "base": tree.fingerprint(base)}
    params = made_once(Cell({"made": "teacher encoder-decoder"}, origin, tune), kept, workdir, console)[1]
    encoders, decoders = settings["without"]
    fewer, begin = slim(described, params, encoder_layers=encoders, layers=decoders)
    held = list(one_pass(rows_of(model, part.dev, tokenizer, settings), size))

    @cache
    def rewritten() -> Rows:
        console.print("the teacher answers the training prompts")
        said = answers(model, params, tokenizer, [e["prompt"] for e in part.train], settings)
        mine = [{**e, "completion": text} for e, text in zip(part.train, said, strict=True) if text]
        return rows_of(model, mine, tokenizer, settings)

    def batches(method: Mapping[str, Any], seed: int) -> BatchOf:
        source = Batches(Stream(rewritten() if method["targets"] == "teacher" else rows, seed), size)
        return lambda step, _: source.batch(step)

    def score(m: Model, p: Params) -> dict[str, float]:
        said = answers(m, p, tokenizer, [e["prompt"] for e in part.dev], settings)
        found = make_evaluate(distillation_loss(m, model, alpha=0.0, temperature=1.0), held)(
            beside_teacher(p, params)[0]
        )
        kept = {"NLL": found["cross_entropy"], "KL": found["divergence"], "agreement": 100 * found["agreement"]}
        return kept | scores(part, said)

    return Family(model, params, build(fewer, policy=settings["policy"]), lambda key: begin, steps, batches, score)


FAMILIES: dict[str, Callable[..., Family]] = {
    "encoder": encoder,
    "decoder": decoder,
    "encoder_decoder": encoder_decoder,
}
