"""What a frozen reference says about every row of the data, computed once and kept in a run's folder.

<folder>/reference/0a1b2c3d4e5f6071.npz     log-probabilities [n, 2], named by the weights and the rows that they are of
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from research.core import tree
from research.core.types import Params
from research.data.build import DataConfig, build_rows
from research.data.preference_rows import WithReference
from research.data.sources import Rows
from research.models import Model
from research.recipes.dpo import reference_logprobs
from research.training.progress import Bar

MakeRows = Callable[[Mapping[str, Any], Any, str | None], Rows]


def rows_once(make: MakeRows = build_rows) -> MakeRows:
    """`build_rows` that makes the rows of a section and split once, however often they are asked for."""
    made: dict[tuple[str, str | None], Rows] = {}

    def rows(section: Mapping[str, Any], tokenizer: Any, split: str | None = None) -> Rows:
        key = (repr(DataConfig.of(section)), split)
        if key not in made:
            made[key] = make(section, tokenizer, split)
        return made[key]

    return rows


def rows_beside(
    folder: Path, model: Model, params: Params, make: MakeRows, *, batch_size: int, chunk: int, mesh: Mesh | None
) -> MakeRows:
    """`build_rows` whose rows also hold what the reference says (`WithReference`); see `kept_logprobs`."""

    def rows(section: Mapping[str, Any], tokenizer: Any, split: str | None = None) -> Rows:
        said = kept_logprobs(
            folder,
            model,
            params,
            make(without_virtual(section), tokenizer, split),
            batch_size=batch_size,
            chunk=chunk,
            mesh=mesh,
        )
        return WithReference(make(section, tokenizer, split), said)

    return rows


def without_virtual(section: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section whose rows are the same texts without the ids of a soft prompt, which the reference does not know."""
    data = DataConfig.of(section)
    if not data.virtual:
        return section
    sizes = {"length": data.length - len(data.virtual), "targets_length": data.targets_length or data.length}
    return dict(section.items()) | sizes | {"virtual": ()}


def kept_logprobs(
    folder: Path, model: Model, params: Params, rows: Rows, *, batch_size: int, chunk: int, mesh: Mesh | None = None
) -> np.ndarray:
    """`recipes.dpo.reference_logprobs` of rows, with progress; computed once for these weights and rows."""
    path = folder / "reference" / f"{_identity(model, params, rows)}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            return kept["logprobs"]
    with Bar("reference", 0, len(rows)) as bar:
        found = reference_logprobs(
            model,
            params,
            rows,
            batch_size=batch_size,
            chunk=chunk,
            mesh=mesh,
            show=lambda done: bar.update(done, {}),
        )
    if jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, logprobs=found)
        part.rename(path)  # whole or not at all
    return found


def _identity(model: Model, params: Params, rows: Rows) -> str:
    """Tells these weights, their precision and these rows from others."""
    told = hashlib.sha256(f"{tree.fingerprint(params)} {model.policy.compute}".encode())
    rng = np.random.default_rng(0)
    for i in range(len(rows)):
        for name, array in sorted(rows.row(i, rng).items()):
            told.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return told.hexdigest()[:16]
