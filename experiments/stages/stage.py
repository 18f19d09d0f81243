"""What a stage is: a function of its config and of the results of earlier stages, done once and then remembered."""

import hashlib
import inspect
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from research.report import seconds


class Interrupted(KeyboardInterrupt):
    """The stage was asked to stop, by Ctrl-C or SIGTERM; what it has saved lets it go on from there."""


@dataclass(frozen=True)
class Done:
    """A finished stage: its folder, its result (JSON values), the seconds it took, the key it is remembered under."""

    folder: Path
    result: dict[str, Any]
    seconds: float
    key: str


@dataclass(frozen=True)
class Stage:
    """A step of the life cycle.

    Attributes:
      name: of the stage, and of its folder together with the key.
      title: what the terminal says while it runs.
      run: `run(config, inputs, folder) -> result`; config holds only what `reads` names, inputs only what `needs`
        names. It may find its own half-done work in the folder.
      needs: earlier stages whose results it takes.
      reads: entries of the config that it depends on.
      makes: files or folders that must exist in its folder afterwards.
    """

    name: str
    title: str
    run: Callable[[Any, Mapping[str, Done], Path], dict[str, Any]]
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()

    def key(self, config: Mapping[str, Any], inputs: Mapping[str, Done]) -> str:
        """A hash of what decides the result: config entries, inputs, the stage's code, Python's and jax's version.

        The code is the stage's own module and the modules of this folder that it imports; after a change elsewhere
        (in `research/`), delete the stage's folder to do it again.
        """
        module = sys.modules[self.run.__module__]
        near = [m for m in vars(module).values() if inspect.ismodule(m) and m.__name__.startswith(__package__)]
        parts = {
            "name": self.name,
            "config": {name: config[name] for name in self.reads},
            "inputs": {name: inputs[name].key for name in self.needs},
            "code": sorted(inspect.getsource(m) for m in (module, *near)),
            "versions": [sys.version.split()[0], jax.__version__],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def run_all(
    stages: Sequence[Stage], config: Mapping[str, Any], workdir: Path, *, console: Console | None = None
) -> dict[str, Done]:
    """Runs the stages in order, each at most once per key; returns what all of them gave.

    A stage that was interrupted finds its own folder again. Raises ValueError before anything runs when a stage
    needs one that does not come before it or reads a config entry that does not exist.
    """
    check(stages, config)
    console = console or Console()
    done: dict[str, Done] = {}
    for number, stage in enumerate(stages, 1):
        inputs = {name: done[name] for name in stage.needs}
        key = stage.key(config, inputs)
        folder = workdir / f"{stage.name}-{key[:10]}"
        remembered = _read(folder, key, stage)
        heading = f"[bold]{number}/{len(stages)}[/] {stage.title}"
        if remembered is not None:
            console.print(f"{heading} [dim]· done before, in {seconds(remembered.seconds)}[/]")
            done[stage.name] = remembered
            continue
        console.print(heading)
        done[stage.name] = _run(stage, {name: config[name] for name in stage.reads}, inputs, folder, key)
        console.print(f"  [dim]took {seconds(done[stage.name].seconds)}[/]")
    return done


def check(stages: Sequence[Stage], config: Mapping[str, Any]) -> None:
    """Raises ValueError for a stage without its inputs, or one that reads a config entry that is not there."""
    before: list[str] = []
    for stage in stages:
        missing = [name for name in stage.needs if name not in before]
        if missing:
            raise ValueError(f"stage {stage.name!r} needs {missing}, but before it come only {before}")
        unknown = [name for name in stage.reads if name not in config]
        if unknown:
            raise ValueError(f"stage {stage.name!r} reads {unknown} from the config, which has {sorted(config)}")
        before.append(stage.name)


def _run(stage: Stage, config: Mapping[str, Any], inputs: Mapping[str, Done], folder: Path, key: str) -> Done:
    folder.mkdir(parents=True, exist_ok=True)
    spent = folder / "seconds.json"  # of earlier, interrupted attempts
    before = json.loads(spent.read_text()) if spent.is_file() else 0.0
    start = time.monotonic()
    try:
        result = stage.run(config, inputs, folder)
    finally:
        total = before + time.monotonic() - start
        spent.write_text(json.dumps(total))
    absent = [name for name in stage.makes if not (folder / name).exists()]
    if absent:
        raise RuntimeError(f"stage {stage.name!r} promised {list(stage.makes)} in {folder}; {absent} do not exist")
    part = folder / "done.json.part"
    part.write_text(json.dumps({"key": key, "seconds": total, "result": result}, indent=1))
    part.replace(folder / "done.json")
    # Read back, so that a remembered result and a fresh one are the same JSON values.
    return Done(folder, json.loads((folder / "done.json").read_text())["result"], total, key)


def _read(folder: Path, key: str, stage: Stage) -> Done | None:
    file = folder / "done.json"
    if not file.is_file() or not all((folder / name).exists() for name in stage.makes):
        return None
    saved = json.loads(file.read_text())
    return Done(folder, saved["result"], saved["seconds"], key) if saved["key"] == key else None


def write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object per line."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What `write_lines` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
