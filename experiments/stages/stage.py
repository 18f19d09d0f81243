"""What a stage is: a function of its config and of the results of earlier stages, done once and then remembered."""

import hashlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from experiments.stages.claims import claimed, room
from research.report import seconds


class Interrupted(KeyboardInterrupt):
    """The stage was asked to stop, by Ctrl-C or SIGTERM; what it has saved lets it go on from there."""


@dataclass(frozen=True)
class Done:
    """A finished stage.

    Attributes:
      folder: of what it made.
      result: JSON values.
      seconds: that it took, beside whatever ran at the same time.
      key: that it is remembered under.
      worked: seconds of processor time.
    """

    folder: Path
    result: dict[str, Any]
    seconds: float
    key: str
    worked: float = 0.0


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
      alone: it measures times, and nothing else of the job runs beside it.
    """

    name: str
    title: str
    run: Callable[[Any, Mapping[str, Done], Path], dict[str, Any]]
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    alone: bool = False

    def key(self, config: Mapping[str, Any], keys: Mapping[str, str]) -> str:
        """A hash of what decides the result: config entries, the inputs' keys, the stage's code, versions.

        The code is the stage's own module and the modules of this folder that it imports; after a change elsewhere
        (in `research/`), delete the stage's folder to do it again.
        """
        module = sys.modules[self.run.__module__]
        near = [m for m in vars(module).values() if inspect.ismodule(m) and m.__name__.startswith(__package__)]
        parts = {
            "name": self.name,
            "config": {name: config[name] for name in self.reads},
            "inputs": {name: keys[name] for name in self.needs},
            "code": sorted(inspect.getsource(m) for m in (module, *near)),
            "versions": [sys.version.split()[0], jax.__version__],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def run_all(
    stages: Sequence[Stage], config: Mapping[str, Any], workdir: Path, *, console: Console | None = None
) -> dict[str, Done]:
    """Runs the stages in order, each at most once per key; returns what all of them gave.

    A stage that was interrupted finds its own folder again. Several processes may do this in one folder at the same
    time: each takes the first stage that is ready and that no other one is at. Raises ValueError before anything runs
    when a stage needs one that does not come before it or reads a config entry that does not exist.
    """
    check(stages, config)
    workdir.mkdir(parents=True, exist_ok=True)
    console, begin = console or Console(), time.time()
    keys: dict[str, str] = {}
    for stage in stages:
        keys[stage.name] = stage.key(config, keys)
    done: dict[str, Done] = {}
    while len(done) < len(stages):
        if not any(_advance(stage, keys, config, workdir, done, console, begin) for stage in stages):
            time.sleep(0.1)  # until another process ends what the rest needs
    return {stage.name: done[stage.name] for stage in stages}


def _advance(
    stage: Stage,
    keys: Mapping[str, str],
    config: Mapping[str, Any],
    workdir: Path,
    done: dict[str, Done],
    console: Console,
    begin: float,
) -> bool:
    """Puts a stage among those that are done, unless it is there, lacks an input or is another process's."""
    if stage.name in done or any(name not in done for name in stage.needs):
        return False
    key = keys[stage.name]
    folder = workdir / f"{stage.name}-{key[:10]}"
    heading = f"[bold]{len(done) + 1} of {len(keys)}[/] {stage.title}"
    with claimed(folder) as mine:
        found = _read(folder, key, stage)
        if found is None and not mine:
            return False
        if found is None:
            console.print(heading)
            given, inputs = {name: config[name] for name in stage.reads}, {name: done[name] for name in stage.needs}
            with room(workdir, alone=stage.alone):
                found = _run(stage, given, inputs, folder, key)
            console.print(f"  [dim]took {seconds(found.seconds)}[/]")
        else:
            when = "done beside" if (folder / "done.json").stat().st_mtime > begin else "done before"
            console.print(f"{heading} [dim]· {when}, in {seconds(found.seconds)}[/]")
    done[stage.name] = found
    return True


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
    spent = folder / "spent.json"  # seconds and processor seconds of earlier, interrupted attempts
    before = json.loads(spent.read_text()) if spent.is_file() else [0.0, 0.0]
    start = _clocks()
    try:
        result = stage.run(config, inputs, folder)
    finally:
        took, worked = (old + now - then for old, now, then in zip(before, _clocks(), start, strict=True))
        spent.write_text(json.dumps([took, worked]))
    absent = [name for name in stage.makes if not (folder / name).exists()]
    if absent:
        raise RuntimeError(f"stage {stage.name!r} promised {list(stage.makes)} in {folder}; {absent} do not exist")
    part = folder / "done.json.part"
    part.write_text(json.dumps({"key": key, "seconds": took, "worked": worked, "result": result}, indent=1))
    part.replace(folder / "done.json")
    # Read back, so that a remembered result and a fresh one are the same JSON values.
    return Done(folder, json.loads((folder / "done.json").read_text())["result"], took, key, worked)


def _clocks() -> tuple[float, float]:
    """Seconds that passed, and those of all cores that worked for this process and its children."""
    return time.monotonic(), sum(os.times()[:4])


def _read(folder: Path, key: str, stage: Stage) -> Done | None:
    file = folder / "done.json"
    if not file.is_file() or not all((folder / name).exists() for name in stage.makes):
        return None
    saved = json.loads(file.read_text())
    if saved["key"] != key:
        return None
    return Done(folder, saved["result"], saved["seconds"], key, saved.get("worked", 0.0))


def write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object per line."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What `write_lines` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
