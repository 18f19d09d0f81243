"""Stages 14 and 15: the pre-trained model with fewer numbers: pruned and cut, then with the whole model as its teacher.

Both measure their forms as the stage before them does, for one table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import smaller as forms
from experiments.cells import Cell, sweep
from experiments.stages import learning, quantize
from experiments.stages.stage import Done, Stage, read_lines
from research import weights
from research.core import tree
from research.core.types import Params
from research.data.corpus import TokenCorpus
from research.data.rows import WindowRows
from research.data.sources import Batches, Rows, Stream
from research.models import Model, ModelConfig, build
from research.recipes.pretrain import language_model_loss
from research.training.step import LossFn


@dataclass
class Subject:
    """The job's own model, as `experiments.smaller` takes it; the training text calibrates it and lets it recover."""

    config: ModelConfig
    params: Params
    settings: Mapping[str, Any]
    rows: Rows

    def hidden(self, model: Model) -> Callable[[Any, Any], Any]:
        """What calibration runs."""
        return lambda params, batch: model.apply(params, batch).hidden

    def loss(self, model: Model) -> LossFn:
        """What it was trained with."""
        return language_model_loss(model)

    def batches(self, seed: int, steps: int) -> list[Any]:
        """Training text in an order of the seed."""
        source = Batches(Stream(self.rows, seed), self.settings["batch_size"])
        return [source.batch(i) for i in range(steps)]

    def calibration(self, seed: int) -> list[Any]:
        """The first batches of that order."""
        return self.batches(seed, self.settings["recovery"]["batches"])


def subject_of(
    config: Mapping[str, Any], settings: Mapping[str, Any], pieces: Any, inputs: Mapping[str, Done]
) -> Subject:
    """The pre-trained model beside its own training text."""
    model = learning.model_of(config, pieces)
    texts = [d["text"] for d in read_lines(inputs["documents"].folder / "train.jsonl")]
    rows = WindowRows(TokenCorpus.from_texts(texts, pieces), model.config.max_length)
    return Subject(model.config, learning.load_weights(inputs["pretrain"], model), settings, rows)


def stage(name: str, title: str) -> Stage:
    """The forms of `config[name]`; each is remembered in the stage's folder when it is done."""

    def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
        settings = config[name]
        ruler = quantize.Ruler.of(config["quantize"], inputs)
        subject = subject_of(config, settings, ruler.pieces, inputs)
        make = forms.shared(subject, list(settings["forms"].values()))

        def one(form: Mapping[str, Any]) -> dict[str, float]:
            return measured(ruler, form, *make(form, settings["seed"]))

        grid = [Cell({"form": form}, given, partial(one, given)) for form, given in settings["forms"].items()]
        return {"forms": {found["form"]: found for found in sweep(grid, folder, Console())}}

    return Stage(
        name=name,
        title=title,
        run=run,
        needs=("documents", "tokenizer", "pretrain"),
        reads=("model", "quantize", name),
    )


def measured(ruler: quantize.Ruler, form: Mapping[str, Any], config: ModelConfig, params: Params) -> dict[str, float]:
    """The figures of one form, with its zeros left out at rest where it is masked and not quantized."""
    model = build(config, policy=form["policy"], unroll=True)
    figures = ruler(model, weights.quantize(params, form["quantize"]))
    if form["prune"] and not form["quantize"]:
        bits = 8 * model.policy.compute.itemsize
        figures["at_rest"] = forms.at_rest(params, int(figures["bytes"]), bits)
    return figures | {"weights": tree.count(params)}


PRUNE = stage("prune", "Fewer numbers: half of every kernel masked, half of the columns cut")
DISTIL = stage("distil", "Fewer numbers, taught by the whole model")


def joined(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, float]]:
    """All small forms of the model, those of fewer bits first."""
    return {name: form for stage in ("quantize", "prune", "distil") for name, form in results[stage]["forms"].items()}
