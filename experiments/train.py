"""Train any model on any text: one config, one folder, from pre-training to instruction tuning.

    python -m experiments.train --config=configs/forkme.py --workdir=runs/mine
    python -m experiments.train --config=configs/forkme.py --config.optimizer.learning_rate=1e-3 --workdir=runs/mine

As several processes, on one machine or many with a shared folder, each with the same command (README, "Several hosts"):

    python -m experiments.train ... --coordinator_address=HOST:PORT --num_processes=2 --process_id=1
    srun python -m experiments.train ... --config.mesh.data=-1 --distributed    # also Kubernetes, Cloud TPU, Open MPI

Stop it (Ctrl-C, SIGTERM, SIGKILL) and start the same command again: it goes on where it was, bit for bit.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

# Also as `python experiments/train.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax

from experiments import command
from research.core import compilation, hosts, memory, tree
from research.data import check_batch, render
from research.interop.run import config_to_dict
from research.models import Model
from research.recipes.assemble import assemble, complete
from research.scaling.capacity import gigabytes, refuse_too_large
from research.scaling.flops import training_per_token
from research.scaling.memory import setting_of, training
from research.training import log
from research.training.checkpoint import Checkpoints
from research.training.fit import Result, fit
from research.weights.prompts import virtual_ids


def run(config: dict, workdir: Path, console: Console) -> Result:
    """The whole run; see `research.recipes.assemble.DEFAULTS` for the config."""
    # ---- prepare: every mismatch is refused here ----
    log.check_writable(workdir)
    hosts.agree("config", config)
    hosts.agree_on_folder(workdir)
    compilation.use_cache(config["cache"])
    parts = assemble(config, workdir, check=lambda *run: check_memory(*run, console))
    hosts.agree("data", parts.source.state(0))
    described = parts.model.config
    stored = json.loads(json.dumps(config)) | {"model": config_to_dict(described), "peft": parts.recipe}
    if hosts.is_first():
        (workdir / "config.json").write_text(json.dumps(stored, indent=1, default=str) + "\n")
    virtual = virtual_ids(tree.merge(parts.state.params, parts.frozen)) if parts.frozen is not None else []
    flops = training_per_token(described, parts.source.example_batch())
    where = "one device" if parts.mesh is None else f"mesh {dict(parts.mesh.shape)}"
    where += f" over {jax.process_count()} hosts" if hosts.several() else ""
    console.print(
        f"{described.family} ({described.kind}) on {where} of {jax.default_backend()}, compute in "
        f"{parts.model.policy.compute}, {flops / 1e6:,.1f} MFLOP per token, {config['steps']} steps into {workdir}",
        soft_wrap=True,
    )
    # ---- train ----
    wandb = config["wandb"] or None
    with (
        log.Logger(workdir, tensorboard=config["tensorboard"], wandb=wandb) as logger,
        Checkpoints(workdir / "checkpoints", keep=config["keep"], config=stored) as checkpoints,
    ):
        return fit(
            parts.state,
            parts.frozen,
            parts.step,
            parts.source,
            steps=config["steps"],
            evaluate=parts.evaluate,
            evaluate_every=config["evaluate_every"],
            checkpoints=checkpoints,
            save_every=config["save_every"],
            logger=logger,
            log_every=config["log_every"],
            patience=config["patience"],
            flops_per_token=flops,
            check=lambda batch: check_batch(batch, described.vocab_size + len(virtual), described.max_length),
            show=lambda batch: console.print(render(batch, parts.tokenizer, rows=1), soft_wrap=True),
            table=True,
            title=described.family,
        )


def check_memory(
    config: Mapping[str, Any], model: Model, batch: Mapping[str, Any], mesh: Any, console: Console
) -> None:
    """Prints what the run takes on a device, and refuses one that does not fit there.

    Raises:
      ValueError: says what would fit.
    """
    device = jax.local_devices()[0]
    setting = setting_of(config, model, batch, mesh)
    told, limit = training(setting), memory.available(device)
    if limit is not None and device.platform == "cpu":  # all devices of a CPU share its memory
        limit //= 1 if mesh is None else mesh.size // jax.process_count()
    parts = ", ".join(f"{name} {gigabytes(count)}" for name, count in told._asdict().items() if count)
    there = "" if limit is None else f" of {gigabytes(limit)}"
    console.print(f"memory on a device: {gigabytes(told.total)}{there} ({parts})", soft_wrap=True)
    if limit is not None:
        refuse_too_large(setting, told, limit)


def work(config: dict, workdir: Path, console: Console) -> int:
    """Trains, and says how it ended; the exit code is 130 where a signal ended it."""
    result = run(complete(config), workdir, console)
    best = "" if result.best is None else f"; best held-out loss {result.best:.4f} at step {result.best_step}"
    console.print(f"{result.stopped} at step {int(result.state.step)}{best}")
    return 130 if result.stopped == "signal" else 0


if __name__ == "__main__":
    command.run(work, several_hosts=True)
