"""Runs tasks of the LM evaluation harness on any of our models.

    python -m experiments.harness --config=configs/harness.py --config.model=runs/lifecycle/base/checkpoints
    python -m experiments.harness --config=configs/harness.py --config.tasks="('sst2', 'piqa')" --config.shots=2

Answers are remembered in the folder: started again, only what was not answered is asked. results.json there is what the
harness gives; the table is its own.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Also as `python experiments/harness.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml
from rich.console import Console

from experiments import command
from experiments.cells import data_folder
from experiments.loading import load
from research.core import compilation
from research.core.names import meant
from research.decoding import Sampling
from research.evaluation.harness import as_lm

ROOT = Path(__file__).resolve().parent.parent


def read_tasks(names: Sequence[str], folder: Path, data: Path, cache: Path) -> list[str | dict[str, Any]]:
    """The task files of these names with {data} filled in; names without a file stay names, tasks of the harness's own.

    Raises:
      ValueError: no name at all. FileNotFoundError: no such folder.
    """
    if not names:
        raise ValueError("no tasks: name at least one")
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of task files at {folder}")
    tasks: list[str | dict[str, Any]] = []
    for name in names:
        path = folder / f"{name}.yaml"
        if not path.is_file():
            tasks.append(name)
            continue
        task = yaml.safe_load(path.read_text(encoding="utf-8"))
        task["dataset_kwargs"] = {**_filled(task.get("dataset_kwargs", {}), data), "cache_dir": str(cache)}
        tasks.append(task)
    return tasks


def _filled(value: Any, data: Path) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, data) for key, inner in value.items()}
    return value.replace("{data}", str(data)) if isinstance(value, str) else value


def evaluate(lm: Any, tasks: Sequence[str | dict[str, Any]], **options: Any) -> dict[str, Any]:
    """`lm_eval.simple_evaluate` of task files and of the harness's own tasks.

    Raises:
      ValueError: a task of neither kind.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    named = [task for task in tasks if isinstance(task, str)]
    manager = TaskManager(include_defaults=bool(named))  # its index of thousands of tasks takes seconds
    unknown = [name for name in named if name not in manager.all_tasks]
    if unknown:
        raise ValueError(
            f"unknown task {unknown[0]!r}{meant(unknown[0], manager.all_tasks)}: no file and no harness task"
        )
    results = lm_eval.simple_evaluate(lm, tasks=list(tasks), task_manager=manager, **options)
    assert results is not None  # only on other hosts than the first
    return results


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Evaluates and prints the table."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ValueError("the LM evaluation harness is not installed: pip install 'lifecycle[harness]'")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from lm_eval.utils import make_table

    compilation.use_cache()
    data = data_folder(config["data"])
    path = config["model"] or str(data / "stories260K" / "checkpoint_v1.bin")
    tasks = read_tasks(config["tasks"], ROOT / config["folder"], data, workdir / "datasets")
    loaded = load(path, config["tokenizer"] or None, config["precision"])
    lm = as_lm(
        loaded.model,
        loaded.params,
        loaded.tokenizer,
        name=Path(path).name,
        batch_size=config["batch_size"],
        length=config["length"] or None,
        stop_tokens=loaded.stops,
        sampling=Sampling(suppress=loaded.unspoken, **loaded.forced),
        cache=workdir / "answers.jsonl",
        console=console,
    )
    results = evaluate(
        lm,
        tasks,
        num_fewshot=None if config["shots"] < 0 else config["shots"],
        limit=config["limit"] or None,
        apply_chat_template=config["chat"],
        fewshot_random_seed=config["seed"],
        log_samples=False,
    )
    kept = {
        name: results[name] for name in ("results", "configs", "versions", "n-shot", "n-samples", "higher_is_better")
    }
    (workdir / "results.json").write_text(json.dumps(kept, indent=1, default=str) + "\n")
    console.print(make_table(results), markup=False, highlight=False)


if __name__ == "__main__":
    command.run(work, config="configs/harness.py", workdir="runs/harness")
