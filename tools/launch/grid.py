"""The cells of a sweep: every combination of settings, each with a folder named after it."""

import hashlib
import importlib.util
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.core.names import flat, meant
from tools.launch.task import read, write

_LONGEST_NAME = 150  # file systems allow 255 bytes, and checkpoints make longer names of it
ALONE = "run"


@dataclass(frozen=True)
class Sweep:
    """A command and the settings that it is started with.

    Attributes:
      command: its words, without --workdir. grid: setting -> values, as text. seeds: of `config.seed`; may be empty.
      config: what its --config says, or {} of a command without one.
    """

    folder: Path
    command: tuple[str, ...]
    grid: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    config: Mapping[str, Any]

    def cells(self) -> list[dict[str, str]]:
        """Setting -> value of every cell, seeds innermost; one without settings where there is no grid."""
        axes = dict(self.grid) | ({"seed": tuple(map(str, self.seeds))} if self.seeds else {})
        return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]

    def cell(self, settings: Mapping[str, str]) -> Path:
        """The folder of a cell."""
        name = ",".join(f"{key}={value}" for key, value in settings.items()) or ALONE
        safe = "".join(c if c.isalnum() or c in "._=,+-" else "_" for c in name)
        if safe != name or len(safe) > _LONGEST_NAME:
            safe = f"{safe[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return self.folder / "cells" / safe

    def words(self, settings: Mapping[str, str]) -> list[str]:
        """The command of a cell."""
        chosen = [f"--config.{key}={value}" for key, value in settings.items()]
        return [*self.command, *chosen, f"--workdir={self.cell(settings) / 'run'}"]


def parse_grid(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`["model.n_layers=2,4"]` as {setting: values}; semicolons separate values that hold commas.

    Raises:
      ValueError: no value, or a setting or a value twice.
    """
    grid: dict[str, tuple[str, ...]] = {}
    for text in given:
        key, equals, rest = text.partition("=")
        key = key.removeprefix("--").removeprefix("config.")
        values = tuple(v.strip() for v in rest.split(";" if ";" in rest else ",") if v.strip())
        if not equals or not key or not values:
            raise ValueError(f"--grid takes setting=value,value,...; given {text!r}")
        if key in grid:
            raise ValueError(f"--grid has {key!r} twice")
        if len(set(values)) < len(values):
            raise ValueError(f"--grid {key} has a value twice: {list(values)}")
        grid[key] = values
    return grid


def make(folder: Path, command: Sequence[str], grid: Sequence[str], seeds: Sequence[int]) -> Sweep:
    """A sweep whose settings exist in the command's config.

    Raises:
      ValueError: an empty command, one that chooses --workdir, a setting that the config lacks, or a seed twice.
    """
    if not command:
        raise ValueError("there is no command; expected -- python -m experiments.train --config=... after the options")
    if any(word.split("=")[0] in ("--workdir", "-workdir") for word in command):
        raise ValueError("--workdir is chosen here, a folder for each cell; leave it out of the command")
    sweep = Sweep(folder, tuple(command), parse_grid(grid), tuple(seeds), resolved(command))
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds has a seed twice: {list(seeds)}")
    if seeds and "seed" in sweep.grid:
        raise ValueError("the seed is in --grid and in --seeds")
    known = flat(sweep.config)
    for key in [*sweep.grid, *(("seed",) if seeds else ())]:
        if not known:
            raise ValueError(
                f"a grid needs a command with --config=..., whose settings it changes; given {list(command)}"
            )
        if key not in known:
            raise ValueError(f"the config has no setting {key!r}{meant(key, known)}")
    return sweep


def claim(sweep: Sweep) -> None:
    """Makes the folder that of this sweep.

    More values of the same settings may join later.

    Raises:
      ValueError: it is that of another command or config, or of other settings.
    """
    path = sweep.folder / "sweep.json"
    mine = {
        "command": list(sweep.command),
        "settings": sorted([*sweep.grid, *(["seed"] if sweep.seeds else [])]),
        "config": json.loads(json.dumps(flat(sweep.config), default=str)),
    }
    if path.is_file():
        stored = read(path)
        for what in ("command", "settings"):
            if stored.get(what) != mine[what]:
                raise ValueError(f"{sweep.folder} is a sweep of another {what}: {stored.get(what)}, now {mine[what]}")
        before, now = stored["config"], mine["config"]
        if differ := sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)):
            told = ", ".join(f"{key} {before.get(key)!r} then, {now.get(key)!r} now" for key in differ[:5])
            raise ValueError(f"{sweep.folder} is a sweep of another config: {told}; take another --folder")
    elif sweep.folder.is_dir() and any(sweep.folder.iterdir()):
        raise ValueError(f"{sweep.folder} is not empty and no sweep; take another --folder")
    else:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        write(path, mine)


def resolved(command: Sequence[str]) -> dict[str, Any]:
    """What the command's `--config=file.py:argument` gives; {} where it has none.

    Raises:
      ValueError: there is no such file, or it has no get_config.
    """
    words = list(command)
    given = next((w.partition("=")[2] for w in words if w.startswith("--config=")), None)
    if given is None and "--config" in words[:-1]:
        given = words[words.index("--config") + 1]
    if given is None:
        return {}
    path, colon, argument = given.partition(":")
    spec = importlib.util.spec_from_file_location("swept_config", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ValueError(f"there is no config file {path!r}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} has no get_config")
    return (module.get_config(argument) if colon else module.get_config()).to_dict()
