"""Where numbers of a run go: always a JSONL file; TensorBoard and Weights & Biases when asked."""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Logger:
    """One line per record: {"step": n, "split": "train", "loss": ...}, n = updates done.

    `begin(step)` is called once before the first record: lines after `step` (written by a run that was killed after
    its last checkpoint) and a half-written last line are dropped, so that a resumed run neither repeats nor loses
    a step.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        name: str = "metrics.jsonl",
        tensorboard: bool = False,
        wandb: Mapping[str, Any] | None = None,
    ) -> None:
        """`wandb`: arguments of `wandb.init`, at least {"project": ...}.

        Raises:
          ValueError: the folder cannot be written, or a tracker is asked for that is not installed.
        """
        self.path = Path(folder) / name
        check_writable(Path(folder))
        self._tensorboard = _need("tensorboardX", "TensorBoard") if tensorboard else None
        self._wandb = _need("wandb", "Weights & Biases") if wandb else None
        self._wandb_options = dict(wandb or {})
        self._writer: Any = None
        self._run: Any = None
        self._stream: Any = None

    def begin(self, step: int) -> None:
        """Opens the file after the record of `step`; 0 starts it anew. What was open is closed first."""
        self.close()
        kept = [line for line in read(self.path) if step > 0 and line["step"] <= step]
        part = self.path.with_suffix(".part")
        part.write_text("".join(json.dumps(line) + "\n" for line in kept))
        part.replace(self.path)
        self._stream = self.path.open("a", buffering=1)
        if self._tensorboard:
            self._writer = self._tensorboard.SummaryWriter(str(self.path.parent), purge_step=step + 1)
        if self._wandb:
            options = {"resume": "allow", "dir": str(self.path.parent), "id": _run_id(self.path.parent)}
            self._run = self._wandb.init(**(options | self._wandb_options))

    def write(self, step: int, values: Mapping[str, float], split: str = "train") -> None:
        """One record; numbers that JSON has no word for (NaN, infinity) become null."""
        if self._stream is None:
            self.begin(0)
        clean = {key: (float(value) if math.isfinite(value) else None) for key, value in values.items()}
        self._stream.write(json.dumps({"step": step, "split": split, **clean}) + "\n")
        for key, value in clean.items():
            if self._writer and value is not None:
                self._writer.add_scalar(f"{split}/{key}", value, step)
        if self._run:
            self._run.log({f"{split}/{key}": value for key, value in clean.items()}, step=step)

    def close(self) -> None:
        """Flushes and closes everything that was opened."""
        if self._stream:
            self._stream.close()
            self._stream = None
        if self._writer:
            self._writer.close()
            self._writer = None
        if self._run:
            self._run.finish()
            self._run = None

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a JSONL log; a last line that was cut off is left out; [] when there is no file."""
    file = Path(path)
    if not file.is_file():
        return []
    lines = file.read_text().splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise ValueError(f"{file}, line {number} is not JSON: {line[:80]!r}") from None
    return records


def check_writable(folder: Path) -> None:
    """Makes the folder and tries to write into it, so that a run fails before work is lost.

    Raises:
      ValueError: says which folder and why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # of its own name: several hosts try at once
            pass
    except OSError as error:
        raise ValueError(f"cannot write into the folder {folder}: {error.strerror}") from None


def _need(module: str, title: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"{title} logging was asked for, but {module} is not installed: pip install 'lifecycle[tracking]'"
        ) from None


def _run_id(folder: Path) -> str:
    import uuid

    file = folder / "wandb_id"
    if not file.is_file():
        file.write_text(uuid.uuid4().hex[:12])
    return file.read_text()
