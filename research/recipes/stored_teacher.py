"""What a teacher says of every row of the data, on disk: its K most probable tokens, so that no teacher is in memory.

<folder>/indices.npy    [n, ..., K] of the smallest unsigned type that holds the vocabulary
<folder>/logprobs.npy   [n, ..., K] float32, log-probabilities at temperature 1, the highest first
<folder>/store.json     of which rows, in which order, by which teacher, and how many are done

n rows · T length · K stored · V vocabulary
"""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from research.core import mesh as meshes
from research.core import tree
from research.core.types import Array, Batch, Params
from research.data.sources import Row, Rows, stack
from research.models import Model
from research.ops.cross_entropy import CHUNK, over_projections
from research.ops.largest import largest
from research.recipes.distill import LABELS, TOKENS
from research.training.progress import Bar


def teacher_topk(model: Model, params: Params, batch: Batch, k: int, *, chunk: int = CHUNK) -> tuple[Array, Array]:
    """(indices, log-probabilities) [..., K] of the K most probable tokens or labels, the highest first."""

    def best(logits: Array) -> tuple[Array, Array]:
        values, ids = largest(jax.nn.log_softmax(logits.astype(jnp.float32)), k)
        return ids, values

    output = model.apply(params, batch)
    if model.config.head in LABELS:
        return best(model.classify(params, output, batch))
    return over_projections(best, [model.projection(params, output.hidden)], chunk=chunk)


def rows_fingerprint(rows: Rows) -> str:
    """Tells these rows in this order from others.

    Raises:
      ValueError: rows that are drawn anew each time, of which nothing can be stored.
    """
    told = hashlib.sha256()
    for i in range(len(rows)):
        row, again = (rows.row(i, np.random.default_rng(seed)) for seed in (0, 1))
        for name, array in sorted(row.items()):
            if not np.array_equal(array, again[name]):
                raise ValueError(
                    f"row {i} is drawn anew each time ({name!r} differs); what a teacher says is stored of rows that "
                    "stay as they are"
                )
            told.update(f"{name} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return told.hexdigest()[:16]


def store_teacher(
    folder: str | Path,
    model: Model,
    params: Params,
    rows: Rows,
    *,
    k: int,
    batch_size: int = 8,
    chunk: int = CHUNK,
    mesh: Mesh | None = None,
) -> Path:
    """Writes what the teacher says of all rows into a folder, with progress; called again, it goes on where it stopped.

    Raises:
      ValueError: K outside 1 .. V, a head without probabilities, no rows, or a folder with something else in it:
        another teacher, other rows or another order, another K.
    """
    config, folder = model.config, Path(folder)
    if config.head not in TOKENS + LABELS:
        raise ValueError(f"probabilities need a head of {[*TOKENS, *LABELS]}; the teacher has {config.head!r}")
    V = config.vocab_size if config.head in TOKENS else config.n_labels
    if not 1 <= k <= V:
        raise ValueError(f"k must be in 1 .. {V}, what the teacher chooses from; given {k}")
    if not len(rows):
        raise ValueError("there are no rows of which a teacher could say something")
    identity = {
        "rows": rows_fingerprint(rows),
        "count": len(rows),
        "teacher": f"{tree.fingerprint(params)} {model.policy.compute}",
        "k": k,
    }
    done = _begun(folder, identity)
    say = jax.jit(lambda p, b: teacher_topk(model, p, b, k, chunk=chunk))
    rng = np.random.default_rng(0)
    with Bar("teacher", done, len(rows)) as bar:
        for start in range(done, len(rows), batch_size):
            index = np.arange(start, min(start + batch_size, len(rows)))
            # Full batches only, so that there is one program.
            batch = stack([rows.row(int(i), rng) for i in np.resize(index, batch_size)])
            with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
                said = jax.device_get(say(params, meshes.place(batch, mesh)))
            _write(folder, identity, index, said, np.min_scalar_type(V - 1))
            bar.update(int(index[-1]) + 1, {})
    return folder


def _files(folder: Path) -> tuple[Path, Path, Path]:
    return folder / "indices.npy", folder / "logprobs.npy", folder / "store.json"


def _begun(folder: Path, identity: dict[str, Any]) -> int:
    """How many rows are done; refuses what was begun for something else."""
    told = _files(folder)[2]
    if not told.is_file():
        return 0
    kept = json.loads(told.read_text())
    for name, value in identity.items():
        if kept[name] != value:
            raise ValueError(f"{folder} holds what was stored with {name} {kept[name]!r}; given {value!r}")
    return kept["done"]


def _write(folder: Path, identity: dict[str, Any], index: np.ndarray, said: Any, small: np.dtype) -> None:
    *arrays, told = _files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path, values, dtype in zip(arrays, said, (small, np.dtype(np.float32)), strict=True):
        shape = (identity["count"], *values.shape[1:])
        new = index[0] == 0
        kept = np.lib.format.open_memmap(path, mode="w+" if new else "r+", dtype=dtype, shape=shape if new else None)
        kept[index] = values[: len(index)]
        kept.flush()
    # Told after the rows are there: a kill between the two repeats a batch.
    part = told.with_suffix(".part")
    part.write_text(json.dumps({**identity, "done": int(index[-1]) + 1}, indent=1) + "\n")
    part.replace(told)


class WithTeacher:
    """Rows with `teacher_indices` and `teacher_logprobs` [..., K] in each, read from a folder of `store_teacher`.

    Raises:
      ValueError: a folder that is not finished, or was stored of other rows or in another order, or by another teacher
        than the one whose `tree.fingerprint` is given.
    """

    def __init__(self, rows: Rows, folder: str | Path, *, teacher: str = "") -> None:
        indices, logprobs, told = _files(Path(folder))
        if not told.is_file():
            raise ValueError(f"{folder} holds nothing that a teacher said: run store_teacher first")
        kept = json.loads(told.read_text())
        if kept["done"] != kept["count"]:
            raise ValueError(f"{folder} holds {kept['done']} of {kept['count']} rows: run store_teacher again")
        if (found := rows_fingerprint(rows)) != kept["rows"]:
            raise ValueError(
                f"{folder} was stored of other rows or in another order: {kept['count']} rows with fingerprint "
                f"{kept['rows']}, given {len(rows)} with {found}"
            )
        if teacher and teacher != kept["teacher"].split()[0]:
            raise ValueError(f"{folder} holds what teacher {kept['teacher']} said, expected {teacher}")
        self._rows = rows
        self._indices, self._logprobs = (np.load(path, mmap_mode="r") for path in (indices, logprobs))

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int, rng: np.random.Generator) -> Row:
        said = {
            "teacher_indices": self._indices[index].astype(np.int32),
            "teacher_logprobs": np.array(self._logprobs[index]),
        }
        return self._rows.row(index, rng) | said
