"""Token corpora: documents laid end to end in memory-mapped shards, read at random without loading them.

Folder: `index.json`, and per shard `train-00000.bin` (uint16 or uint32 ids), `train-00000.offsets.npy` (where documents
begin, int64, and the end). `tokenizer/` holds the tokenizer that made it.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

VERSION = 1


class Shard(NamedTuple):
    """Ids [n] of one shard and the offsets [documents + 1] at which its documents begin (the last is n)."""

    tokens: np.ndarray
    offsets: np.ndarray


class TokenCorpus:
    """Documents of token ids; `fingerprint` names the tokenizer they were made with, `num_bytes` their UTF-8 size."""

    def __init__(self, shards: Sequence[Shard], *, fingerprint: str = "", num_bytes: int | None = None):
        self.shards = [s for s in shards if len(s.tokens)]
        self.fingerprint, self.num_bytes = fingerprint, num_bytes
        self.num_tokens = sum(len(s.tokens) for s in self.shards)
        self._first = np.cumsum([0, *(len(s.offsets) - 1 for s in self.shards)])

    @classmethod
    def from_documents(cls, documents: Iterable[Sequence[int]], *, fingerprint: str = "") -> "TokenCorpus":
        """A corpus in memory; documents without tokens are left out."""
        parts = [np.asarray(d, np.int32) for d in documents]
        parts = [p for p in parts if len(p)]
        offsets = np.cumsum([0, *map(len, parts)])
        tokens = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        return cls([Shard(tokens, offsets)], fingerprint=fingerprint)

    @classmethod
    def from_texts(cls, texts: Iterable[str], tokenizer, *, bos: bool | None = None, eos: bool | None = None):
        """Tokenize texts in memory; by default every document has the begin and end tokens that exist."""
        bos, eos = ends(tokenizer, bos, eos)
        size = 0

        def coded():
            nonlocal size
            for text in texts:
                size += len(text.encode("utf-8", "surrogatepass"))
                yield tokenizer.encode(text, bos=bos, eos=eos, specials=False) if text else []

        corpus = cls.from_documents(coded(), fingerprint=tokenizer.fingerprint)
        corpus.num_bytes = size
        return corpus

    @classmethod
    def open(cls, folder: str | Path, split: str = "train", *, tokenizer=None) -> "TokenCorpus":
        """Map a prepared folder; raises ValueError for an unknown split, another tokenizer or a damaged shard."""
        folder = Path(folder)
        if not (folder / "index.json").is_file():
            raise FileNotFoundError(f"{folder} holds no index.json: not a prepared corpus, or one left half done")
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if index.get("version") != VERSION:
            raise ValueError(f"{folder}: corpus version {index.get('version')}, this code reads {VERSION}")
        if split not in index["splits"]:
            raise ValueError(f"{folder}: unknown split {split!r}; have {sorted(index['splits'])}")
        made_by = index["tokenizer"]["fingerprint"]
        if tokenizer is not None and tokenizer.fingerprint != made_by:
            given = tokenizer.fingerprint
            raise ValueError(f"{folder} was made with another tokenizer ({made_by[:12]}..., got {given[:12]}...)")
        entry = index["splits"][split]
        shards = [_map_shard(folder, s, index["dtype"]) for s in entry["shards"]]
        return cls(shards, fingerprint=made_by, num_bytes=entry["bytes"])

    @property
    def num_documents(self) -> int:
        return int(self._first[-1])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every document [documents]."""
        parts = [np.diff(s.offsets) for s in self.shards]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def document(self, index: int) -> np.ndarray:
        """Ids of document `index` (int32 [n])."""
        if not 0 <= index < self.num_documents:
            raise IndexError(f"document {index} of {self.num_documents}")
        k = int(np.searchsorted(self._first, index, side="right")) - 1
        shard, i = self.shards[k], index - int(self._first[k])
        return np.asarray(shard.tokens[shard.offsets[i] : shard.offsets[i + 1]], np.int32)


def ends(tokenizer, bos: bool | None, eos: bool | None) -> tuple[bool, bool]:
    """Whether documents get begin and end tokens: as asked, else when they exist (one of them if both are the same)."""
    if eos is None:
        eos = tokenizer.eos_id is not None
    if bos is None:
        bos = tokenizer.bos_id is not None and tokenizer.bos_id != tokenizer.eos_id
    return bos, eos


def token_dtype(vocab_size: int) -> str:
    """The smallest dtype that holds every id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def _map_shard(folder: Path, entry: dict, dtype: str) -> Shard:
    path = folder / entry["file"]
    expected = entry["tokens"] * np.dtype(dtype).itemsize
    if not path.is_file() or path.stat().st_size != expected:
        size = path.stat().st_size if path.is_file() else "absent"
        raise ValueError(f"{path}: expected {expected} bytes, found {size}; prepare the corpus again")
    tokens = np.memmap(path, dtype, mode="r") if expected else np.zeros(0, dtype)
    offsets = np.load(path.with_suffix(".offsets.npy"))
    return Shard(tokens, offsets)
