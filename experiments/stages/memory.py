"""Stage 16: what each run of this job takes in memory, told from shapes, beside what the compiler says of its step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.stages import learning, tokenizer
from experiments.stages.stage import Done, Stage
from experiments.stages.tune import NAMES
from research.models import Model
from research.scaling.memory import Setting, compiled, training


def run(config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path) -> dict[str, Any]:
    """{run: the parts of its account, and for those that are compiled "compiler": what stays, and the step}."""
    del folder
    model = learning.model_of(config, tokenizer.load(inputs["tokenizer"]))
    accounts: dict[str, Any] = {}
    for name in NAMES:
        setting = setting_of(model, config[name])
        told = training(setting)
        accounts[name] = {"parts": told._asdict(), "state": told.state, "rest": told.rest}
        if name in config["memory"]["compiled"]:
            accounts[name]["compiler"] = list(compiled(setting))
    return {"accounts": accounts}


def setting_of(model: Model, run: Mapping[str, Any]) -> Setting:
    """A run of this job, as far as its memory depends on it."""
    return Setting(
        model.config,
        run["batch_size"],
        model.config.max_length,
        recipe=run.get("peft") or (),
        optimizer=dict(run["optimizer"]),
        policy=model.policy,
        unroll=model.unroll,
        packed=True,
    )


def rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table, in megabytes."""
    out = []
    for name, account in result["accounts"].items():
        parts = account["parts"]
        told = (parts["weights"], parts["optimizer"], parts["batch"], account["rest"], sum(parts.values()))
        beside = [
            f"{real / 1e6:.2f} ({100 * (account[part] / real - 1):+.1f} %)"
            for part, real in zip(("state", "rest"), account.get("compiler", ()), strict=False)
        ]
        out.append([name, *(f"{count / 1e6:.2f}" for count in told), *(beside or ["", ""])])
    header = ["run, MB", "weights", "optimizer", "batch", "step", "together"]
    return [*header, "compiler: what stays (account)", "compiler: step (account)"], out


STAGE = Stage(
    name="memory",
    title="Memory account of the four runs",
    run=run,
    needs=("tokenizer",),
    reads=("model", *NAMES, "memory"),
)
