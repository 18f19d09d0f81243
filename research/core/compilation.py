"""Compiled programs: the persistent cache, from which the next process reads them back, and how many there are."""

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

COMPILED = "/jax/core/compile/backend_compile_duration"  # jax's name for one program compiled
_programs = 0


def _count(event: str, duration_secs: float, **kwargs: str | int) -> None:
    global _programs
    _programs += event == COMPILED


jax.monitoring.register_event_duration_secs_listener(_count)


def programs() -> int:
    """How many programs this process has compiled or read back since this module was imported."""
    return _programs


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
