"""Checkpoints: one module around orbax. Asynchronous, atomic, verified, restorable onto another mesh.

<folder>/00000120/          what orbax wrote (the state as nested dicts), and beside it
    meta.json               format, step, shapes, config, git hash, data position, metrics, progress
    manifest.json           size and checksum of every file; written last, so without it the save did not finish
<folder>/frozen/            weights that no step changes, saved once
"""

import json
import os
import shutil
import subprocess
import threading
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from research.core import hosts, tree

FORMAT = 1
_META, _MANIFEST = "meta.json", "manifest.json"


class Restored(NamedTuple):
    """A state and what was saved beside it."""

    state: Any
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run: the newest `keep`, and the best by one metric.

    config: anything JSON can hold; it is stored in every checkpoint, with the git hash of the code.
    metric: key of `metrics` given to `save`; lower is better unless `higher_is_better`.
    say: where messages about refused checkpoints go.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: int = 2,
        metric: str = "loss",
        higher_is_better: bool = False,
        config: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1 checkpoint, given {keep}")
        self.folder = Path(folder).absolute()
        self.metric = metric
        self._keep, self._sign = keep, -1.0 if higher_is_better else 1.0
        self._common = {"format": FORMAT, "config": dict(config or {}), "git": git_hash()}
        self._say = say
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot make the checkpoint folder {self.folder}: {error.strerror}") from None

    def save(
        self,
        state: Any,
        *,
        data: Any = None,
        metrics: Mapping[str, float] | None = None,
        progress: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts to save and returns once the arrays are copied: the next step may donate them.

        data: the position of the data source; progress: what the loop wants back on resume. Both must be JSON.
        """
        self.wait()
        step = int(state.step)
        flat = {path: _plain(leaf) for path, leaf in tree.paths(state).items()}
        meta = self._common | {
            "step": step,
            "shapes": {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in flat.items()},
            "data": data,
            "metrics": dict(metrics or {}),
            "progress": dict(progress or {}),
        }
        text = json.dumps(meta)  # a value that is not JSON fails here, before anything is written
        path = self.folder / f"{step:08d}"
        (path / _MANIFEST).unlink(missing_ok=True)
        # While it is read in the background, the runtime refuses to donate a buffer (the step then writes elsewhere).
        response = ocp.save_async(path, _nested(flat), overwrite=True)
        self._thread = threading.Thread(target=self._finish, args=(response, path, text), name="checkpoint")
        self._thread.start()

    def keep_frozen(self, frozen: Any) -> Any:
        """Saves the frozen weights once; in a run that goes on, gives back those it started with.

        Raises:
          ValueError: the saved ones are of another model.
        """
        path, flat = self.folder / "frozen", tree.paths(frozen)
        if not flat:
            return frozen
        if path.is_dir() and self.steps() and not _damage(path):
            check_fits(frozen, _read_meta(path), path)
            loaded = tree.paths(ocp.load(path, _nested({name: _abstract(leaf) for name, leaf in flat.items()})))
            return tree.map_with_path(lambda name, _: loaded[name], frozen)
        shapes = {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in flat.items()}
        ocp.save(path, _nested(flat), overwrite=True)
        if jax.process_index() == 0:
            _seal(path, json.dumps(self._common | {"shapes": shapes}))
        return frozen

    def restore(self, like: Any, step: int | None = None) -> Restored | None:
        """The newest sound checkpoint (or that of one step) in the shapes, types and layouts of `like`.

        `like`: a state, or its `abstract`. A half-written or damaged checkpoint is reported and passed over for
        the one before. None: there is no sound one.

        Raises:
          ValueError: the checkpoint is of another model (missing, unexpected and misshaped paths are listed), of
            a newer format, or the wanted step is not there.
        """
        self.wait()
        found = _usable(self.folder, step, self._say)
        # The first host chooses: another may be slow to see what was written last.
        chosen = hosts.from_first(-1 if found is None else int(found[0].name))
        if chosen < 0:
            return None
        path = self.folder / f"{chosen:08d}"
        meta = _read_meta(path)
        check_fits(like, meta, path)
        leaves = {name: _abstract(leaf) for name, leaf in tree.paths(like).items()}
        loaded = tree.paths(ocp.load(path, _nested(leaves)))
        state = tree.map_with_path(lambda name, leaf: _typed(loaded[name], leaf), like)
        return Restored(state, meta)

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        return [int(path.name) for path in _folders(self.folder) if (path / _MANIFEST).is_file()]

    def best(self) -> int | None:
        """The step whose metric is best, or None when no checkpoint carries the metric."""
        scored = []
        for step in self.steps():
            value = _read_meta(self.folder / f"{step:08d}")["metrics"].get(self.metric)
            if value is not None:
                scored.append((self._sign * value, step))
        return min(scored)[1] if scored else None

    def wait(self) -> None:
        """Blocks until the running save is on disk; an error of the background thread is raised here."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise RuntimeError(f"saving a checkpoint into {self.folder} failed: {error}") from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        if kind is None or not hosts.several():  # a save that waits for a lost host would never end
            self.wait()

    def _finish(self, response: Any, path: Path, text: str) -> None:
        try:
            response.result()
            if jax.process_index() == 0:
                _seal(path, text)
                self._prune()
        except BaseException as error:
            self._error = error

    def _prune(self) -> None:
        done = self.steps()
        kept = {*done[-self._keep :], self.best()}
        for step in done:
            if step not in kept:
                shutil.rmtree(self.folder / f"{step:08d}")


def load_params(folder: str | os.PathLike[str], step: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """(weights as a nested dict, meta) of a run's newest sound checkpoint, without knowing its model or optimizer.

    Raises:
      ValueError: there is no sound checkpoint in the folder.
    """
    root = Path(folder).absolute()
    found = _usable(root, step, print)
    if found is None:
        raise ValueError(f"no sound checkpoint in {root}; it holds {_listing(root)}")
    path, meta = found
    flat = _load_part(path, {k: v for k, v in meta["shapes"].items() if k.startswith("params/")})
    params = {name.removeprefix("params/"): leaf for name, leaf in flat.items()}
    if (root / "frozen").is_dir():
        params |= _load_part(root / "frozen", _read_meta(root / "frozen")["shapes"])
    return _nested(params), meta


def check_fits(like: Any, meta: Mapping[str, Any], path: Path) -> None:
    """Raises ValueError listing what is missing, unexpected and misshaped when a checkpoint is of another model."""
    flat = {name: _abstract(leaf) for name, leaf in tree.paths(like).items()}
    have = {name: jax.ShapeDtypeStruct(tuple(shape), dtype) for name, (shape, dtype) in meta["shapes"].items()}
    tree.check_same(flat, have, what=f"checkpoint {path} (of another model or optimizer?)")


def git_hash() -> str:
    """The commit of this code, with "+changes" when the tree differs from it; "unknown" outside git."""
    root = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())


def _listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _usable(folder: Path, step: int | None, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest (or the wanted) folder that passes its manifest, and its meta."""
    if not folder.is_dir():
        return None
    found = _folders(folder)
    if step is not None:
        found = [path for path in found if int(path.name) == step]
        if not found:
            raise ValueError(f"no checkpoint of step {step} in {folder}; have {[p.name for p in _folders(folder)]}")
    for path in reversed(found):
        damage = _damage(path)
        if damage:
            say(f"checkpoint {path} is refused: {damage}; the one before it is used")
            continue
        meta = _read_meta(path)
        if meta["format"] > FORMAT:
            raise ValueError(f"checkpoint {path} has format {meta['format']}; this code reads up to {FORMAT}")
        return path, meta
    return None


def _read_meta(path: Path) -> dict[str, Any]:
    return json.loads((path / _META).read_text())


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and file != path / _MANIFEST)


def _digest(file: Path) -> list[int]:
    crc = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return [file.stat().st_size, crc]


def _seal(path: Path, meta: str) -> None:
    (path / _META).write_text(meta)
    table = {str(file.relative_to(path)): _digest(file) for file in _files(path)}
    part = path / (_MANIFEST + ".part")
    part.write_text(json.dumps(table))
    part.rename(path / _MANIFEST)


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint folder, in words; empty when it is sound."""
    try:
        table = json.loads((path / _MANIFEST).read_text())
    except FileNotFoundError:
        return "it was not written to the end (no manifest)"
    except ValueError:
        return "its manifest is damaged"
    for name, (size, crc) in table.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        now, sum_now = _digest(path / name)
        if now != size:
            return f"{name} has {now} of {size} bytes"
        if sum_now != crc:
            return f"{name} has changed (checksum)"
    return ""


def _load_part(path: Path, shapes: Mapping[str, Any]) -> dict[str, Any]:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = {
        name: jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype), sharding=device)
        for name, (shape, dtype) in shapes.items()
    }
    context = ocp.Context()
    context.pytree_options.loading.partial_load = True
    with context:
        return tree.paths(ocp.load(path, _nested(wanted)))


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Paths as nested dicts: no tuples, no None, no class of ours is ever written."""
    out: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = out
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return out


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    if _is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=leaf.sharding)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _typed(loaded: Any, like: Any) -> Any:
    if not _is_key(like):
        return loaded
    impl: list[Any] = []  # only traced keys tell their generator when `like` is abstract
    jax.eval_shape(lambda key: impl.append(jax.random.key_impl(key)), jax.ShapeDtypeStruct(like.shape, like.dtype))
    return jax.random.wrap_key_data(loaded, impl=impl[0])
