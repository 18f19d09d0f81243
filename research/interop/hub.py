"""A folder on disk, or a model id of the Hugging Face hub; without a network, one sentence."""

import os
import re
from pathlib import Path

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "README.md")
_OFF = {"", "0", "false", "no", "off"}


def offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids the network."""
    values = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value.lower() not in _OFF for value in values)


def resolve(path_or_id: str | os.PathLike[str], *, revision: str | None = None) -> Path:
    """The local folder of a model: itself if it exists, else the hub's files, downloaded once and then cached.

    Raises:
      FileNotFoundError: no such folder, and no such model in the cache or on the hub; one sentence says which.
    """
    text = os.fspath(path_or_id)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise FileNotFoundError(f"{folder} is a file; expected a folder with config.json and model.safetensors")
    if not _ID.fullmatch(text):
        raise FileNotFoundError(f"no folder at {text!r}, and it is not a hub id such as 'gpt2' or 'owner/name'")
    return _snapshot(text, revision)


def _snapshot(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    def fetch(*, cached: bool) -> Path:
        found = snapshot_download(name, revision=revision, allow_patterns=list(_FILES), local_files_only=cached)
        return Path(str(found))

    reason = "HF_HUB_OFFLINE is set"
    if not offline():
        try:
            return fetch(cached=False)
        except Exception as error:  # whatever the network did, the cache is asked next
            said = (str(error).strip() or "no reason given").splitlines()[0]
            reason = f"the hub did not deliver it: {type(error).__name__}: {said}"
    disable_progress_bars()
    try:
        return fetch(cached=True)
    except Exception:
        raise FileNotFoundError(
            f"no folder named {name!r}, none in the local cache of the Hugging Face hub, and {reason}"
        ) from None
    finally:
        enable_progress_bars()
