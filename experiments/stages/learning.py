"""What the training stages share: the model of the config, and one training run that can be interrupted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.stages.stage import Done, Interrupted
from research import weights
from research.core import tree
from research.core.types import Params
from research.data.sources import Batches, Rows, Stream, one_pass
from research.models import Model, build, preset
from research.recipes.pretrain import language_model_loss
from research.training import log, loss_scale, optim, state
from research.training.checkpoint import Checkpoints, load_params
from research.training.evaluate import make_evaluate
from research.training.fit import fit
from research.training.step import LossFn, make_step


class _Planned(NamedTuple):
    """What is known of a tokenizer before it is trained."""

    vocab_size: int
    pad_id: int = 0
    eos_id: int = 1
    bos_id: int = 3


def check(config: Mapping[str, Any], runs: Sequence[str]) -> None:
    """Raises ValueError, before any work, for settings of the model, of a run's optimizer or PEFT that do not fit."""
    model = model_of(config, _Planned(config["tokenizer"]["vocab_size"]))
    for run in runs:
        learned, recipe = model.abstract(), config[run].get("peft") or ()
        if recipe:
            learned = weights.structure(learned, recipe, config=model.config)
            learned = tree.split(learned, weights.trainable(learned, recipe))[0]
        optim.make(config[run]["optimizer"], learned, steps=config[run]["steps"])
        loss_scale.make({}, model.policy, learned)


def model_of(config: Mapping[str, Any], tokenizer: Any) -> Model:
    """`config["model"]`: a preset with its sizes changed, and the vocabulary and special tokens of the tokenizer."""
    settings = dict(config["model"])
    policy, unroll = settings.pop("policy"), settings.pop("unroll")
    described = preset(settings.pop("preset")).replace(
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        **settings,
    )
    return build(described, policy=policy, unroll=unroll)


def train(
    model: Model,
    settings: Mapping[str, Any],
    rows: Rows,
    held_out: Rows,
    folder: Path,
    *,
    params: Params | None = None,
    loss_fn: LossFn | None = None,
    title: str,
) -> dict[str, Any]:
    """One run into folder/checkpoints and folder/metrics.jsonl; goes on where an interrupted one was.

    With params, only what the recipe `settings["peft"]` names learns (empty or absent: everything). Without a loss_fn
    the next token is predicted.

    Raises Interrupted after SIGTERM or Ctrl-C, with everything saved.
    """
    steps, batch_size, seed = settings["steps"], settings["batch_size"], settings["seed"]
    key = jax.random.key(seed)
    params = model.init(jax.random.fold_in(key, 0)) if params is None else params
    recipe = settings.get("peft") or ()
    if recipe:
        params = weights.attach(params, recipe, jax.random.fold_in(key, 2), config=model.config)
    learning = weights.trainable(params, recipe) if recipe else None
    learned = tree.split(params, learning)[0] if recipe else params
    optimizer = optim.make(settings["optimizer"], learned, steps=steps)
    scale = loss_scale.make({}, model.policy, learned)
    rng = jax.random.fold_in(key, 1)
    begin, frozen = state.create(params, optimizer, rng=rng, trainable=learning, loss_scale=scale)
    loss_fn = loss_fn or language_model_loss(model)
    few = list(one_pass(held_out, batch_size))[: settings["evaluate_batches"]]
    with (
        log.Logger(folder) as logger,
        Checkpoints(folder / "checkpoints", keep=1, config=_plain(settings)) as checkpoints,
    ):
        result = fit(
            begin,
            frozen,
            make_step(loss_fn, optimizer),
            Batches(Stream(rows, seed), batch_size),
            steps=steps,
            evaluate=make_evaluate(loss_fn, few),
            evaluate_every=settings["evaluate_every"],
            checkpoints=checkpoints,
            save_every=settings["save_every"],
            logger=logger,
            title=title,
        )
    if result.stopped == "signal":
        raise Interrupted(f"stopped at step {int(result.state.step)} of {steps}")
    read = sum(few[0][name].size for name in ("tokens", "inputs") if name in few[0])
    records = log.read(folder / "metrics.jsonl")
    return {
        "parameters": tree.count(learned),
        "recipe": weights.describe(recipe),
        "steps": steps,
        "epochs": steps * batch_size / len(rows),
        "tokens": steps * read,
        "train": curve(records, "train"),
        "held_out": curve(records, "held_out"),
    }


def load_weights(done: Done, model: Model) -> Params:
    """The weights after the last step of a finished training stage, with its adapters."""
    stored, _ = load_params(done.folder / "checkpoints", done.result["steps"])
    return weights.restored(stored, model.abstract(), done.result["recipe"], config=model.config)


def curve(records: Sequence[Mapping[str, Any]], split: str, name: str = "loss", points: int = 120) -> list[list[float]]:
    """[step, value] pairs of one metric of one split, averaged into at most `points` of them."""
    pairs = np.array([(r["step"], r[name]) for r in records if r["split"] == split and r.get(name) is not None])
    if len(pairs) == 0:
        return []
    return [part.mean(axis=0).tolist() for part in np.array_split(pairs, min(points, len(pairs)))]


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(v) if isinstance(v, Mapping) else v for name, v in settings.items()}
