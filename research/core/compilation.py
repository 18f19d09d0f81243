"""The persistent compilation cache: a program compiled once is read back by the next process."""

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


def use_cache(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Turns the cache on and returns its folder; the empty string turns it off.

    The default is $LIFECYCLE_CACHE, else `lifecycle/xla` in the user's cache folder. A folder that cannot be
    written is no error: the cache stays off and None is returned, since only time depends on it.
    """
    compilation_cache.reset_cache()  # else the folder of an earlier call stays in use
    chosen = folder if folder is not None else os.environ.get("LIFECYCLE_CACHE", _default())
    if not str(chosen):
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    path = Path(chosen).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(path, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return path


def _default() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lifecycle" / "xla"
