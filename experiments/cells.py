"""A grid of small trainings, each remembered as one JSON file: started again, only what is missing is done."""

import hashlib
import json
import os
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track


@dataclass(frozen=True)
class Cell:
    """One measurement: where it stands in the grid, all that decides its result, and how to get it.

    Attributes:
      at: its coordinates, such as {"task": "sst2", "method": "lora", "seed": 0}; they name its file.
      settings: JSON values; a file that was made with others is made anew.
      run: gives the figures, JSON values too.
    """

    at: Mapping[str, Any]
    settings: Mapping[str, Any]
    run: Callable[[], Mapping[str, Any]]

    def file(self) -> str:
        """Its file's name, from the coordinates."""
        return "-".join(re.sub(r"\W", "_", str(value)) for value in self.at.values()) + ".json"


def run_folder(workdir: Path, at: Mapping[str, Any], settings: Mapping[str, Any]) -> Path:
    """Where a cell keeps its checkpoints; other settings have another folder, so that none goes on from them."""
    told = json.dumps(settings, sort_keys=True).encode()
    return workdir / f"{Cell(at, {}, dict).file().removesuffix('.json')}-{hashlib.sha256(told).hexdigest()[:8]}"


def sweep(grid: Sequence[Cell], folder: Path, console: Console) -> list[dict[str, Any]]:
    """The figures of all cells in order, each joined with its coordinates and settings.

    Raises:
      ValueError: two cells of one file name.
    """
    if len({cell.file() for cell in grid}) != len(grid):
        raise ValueError(f"two cells share a file name: {sorted(cell.file() for cell in grid)}")
    return [_remembered(cell, folder / cell.file()) for cell in track(grid, "cells", console=console)]


def _remembered(cell: Cell, path: Path) -> dict[str, Any]:
    settings = json.loads(json.dumps(cell.settings))
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if kept.get("settings") != settings:
        kept = json.loads(json.dumps({**cell.at, "settings": settings, **cell.run()}))
        part = path.with_suffix(".part")
        part.write_text(json.dumps(kept, indent=1) + "\n")
        part.replace(path)
    return kept


def picked(results: Sequence[Mapping[str, Any]], **at: Any) -> list[Mapping[str, Any]]:
    """The results at these coordinates."""
    return [r for r in results if all(r[name] == value for name, value in at.items())]


def names(results: Sequence[Mapping[str, Any]], coordinate: str) -> list[Any]:
    """The values of one coordinate, in the order of the grid."""
    return list(dict.fromkeys(r[coordinate] for r in results))


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation over seeds, of one seed the value alone."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def data_folder(given: str = "") -> Path:
    """The folder of the data sets: as given, else LIFECYCLE_DATA, else ../shared/data.

    Raises:
      ValueError: there is none.
    """
    chosen = given or os.environ.get("LIFECYCLE_DATA", "")
    root = Path(chosen) if chosen else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not root.is_dir():
        raise ValueError(f"no data folder at {root}: set LIFECYCLE_DATA or --config.data (README, 'Data')")
    return root
