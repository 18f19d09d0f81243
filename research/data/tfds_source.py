"""TensorFlow Datasets without TensorFlow: builders written as array_record, read at random, batched by Grain."""

import copy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .sources import Row


def start_threads() -> None:
    """Makes array_record's pool of threads; call it before a process computes anything.

    array_record makes it at its first read and, in a process that had used much memory before, was seen to hang there
    for good (0.8.6). `experiments.command` calls it for every experiment; a notebook has to. On Windows, which has no
    array_record, nothing happens.
    """
    if sys.platform == "win32":
        return
    from array_record.python import array_record_module

    with TemporaryDirectory() as folder:
        path = f"{folder}/empty.array_record"
        array_record_module.ArrayRecordWriter(path, "group_size:1").close()
        array_record_module.ArrayRecordReader(path).close()


class TfdsExamples:
    """Examples of a TFDS split by name, or of a prepared folder; text comes as str.

    `name` is a registered data set (`tfds.data_source`) or a folder that holds a prepared version. Only the
    array_record format can be read without TensorFlow.
    """

    def __init__(self, name: str | Path, split: str = "train", *, data_dir: str | Path | None = None):
        import tensorflow_datasets as tfds

        self.name, self.split = str(name), split
        try:
            if Path(name).is_dir():
                builder = tfds.builder_from_directory(str(name))
            else:
                # Looked up first: data_source alone would try to download, which array_record data need not.
                builder = tfds.builder(str(name), data_dir=None if data_dir is None else str(data_dir))
            if builder.info.splits is None or split.split("[")[0] not in builder.info.splits:
                have = sorted(builder.info.splits or [])
                raise ValueError(f"{name} has no split {split!r}; have {have} (none means: not prepared yet)")
            self._source: Any = builder.as_data_source(split=split)
        except (tfds.core.registered.DatasetNotFoundError, FileNotFoundError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"no TFDS data set {str(name)!r} that can be read here: {reason}") from None
        except (NotImplementedError, ModuleNotFoundError) as error:
            raise ValueError(f"{name} is not in array_record format, which needs TensorFlow: {error}") from None

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {key: _plain(value) for key, value in self._source[index].items()}


def _plain(value):
    """bytes as str, inside lists and dictionaries too."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_plain(v) for v in value.tolist()]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


class GrainBatches:
    """A source whose shuffling, mapping and batching Grain does; `batch(step)` stays a function of (seed, step).

    Args:
      examples: anything with `len` and `[i]` (a `TfdsExamples`).
      make_row: example -> row of fixed shapes (numpy); with `random=True` it is called `make_row(example, rng)`.
      batch_size: rows over all hosts; host `shard = (index, count)` reads every count-th row of the shuffled stream:
        however many there are, together they have the same batches.
    """

    def __init__(
        self,
        examples,
        make_row: Callable[..., Mapping[str, np.ndarray]],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        shard: tuple[int, int] = (0, 1),
        random: bool = False,
    ):
        import grain

        index, count = shard
        if batch_size <= 0 or batch_size % count or not 0 <= index < count:
            raise ValueError(f"batch_size {batch_size} does not divide over {count} hosts (this is {index})")
        if len(examples) == 0:
            raise ValueError("there are no examples: nothing to train on")
        self._settings = {"examples": len(examples), "batch_size": batch_size, "seed": seed}
        data = grain.MapDataset.source(examples).seed(seed)
        data = data.shuffle() if shuffle else data
        data = data.repeat()
        data = data.random_map(make_row) if random else data.map(make_row)
        self._dataset = data[index::count].batch(batch_size // count, drop_remainder=True)

    def batch(self, step: int) -> Row:
        return dict(self._dataset[step])

    def example_batch(self) -> Row:
        return self.batch(0)

    def iterator(self, step: int = 0, *, threads: int = 4, buffer: int = 8):
        """Grain's own iterator from `step` on, reading ahead in threads; its `get_state()` is small JSON."""
        import grain

        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer)
        iterator = iter(self._dataset.to_iter_dataset(options))
        if step:
            state = copy.deepcopy(iterator.get_state())
            state["next_index"] = step
            iterator.set_state(state)
        return iterator

    def state(self, step: int) -> dict:
        return {"step": step, **self._settings}

    def restore(self, state: dict) -> int:
        """The step to go on from; raises ValueError if the state belongs to other data."""
        mine = self.state(state["step"])
        if state != mine:
            raise ValueError(f"the checkpoint was made with other data: {state}, now {mine}")
        return state["step"]
