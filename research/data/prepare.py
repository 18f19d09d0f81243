"""A user's files become a tokenized corpus, shard by shard: duplicates removed, split by document, resumable."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .corpus import VERSION, ends, token_dtype
from .files import documents
from .python_docs import is_heldout

SPLITS = ("train", "heldout")


class _Shard:
    """Documents of one shard on their way to disk."""

    def __init__(self) -> None:
        self.ids: dict[str, list[np.ndarray]] = {s: [] for s in SPLITS}
        self.bytes = dict.fromkeys(SPLITS, 0)
        self.hashes: list[bytes] = []
        self.duplicates = 0
        self.tokens = 0


def prepare(
    files: Sequence[Path],
    tokenizer,
    out: str | Path,
    *,
    heldout: float = 0.01,
    shard_tokens: int = 1 << 24,
    column: str = "text",
    bos: bool | None = None,
    eos: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Tokenize `files` into the folder `out` (layout in `corpus`); returns the index that is written last.

    Exact duplicates of a document are removed; a document is held out by the hash of its content. A call that was
    interrupted goes on after the last whole shard; a folder begun with other inputs or settings is refused.
    `progress(bytes_done, bytes_total)` is called after each document.
    """
    if not 0 <= heldout < 1:
        raise ValueError(f"heldout must be a fraction in [0, 1), got {heldout}")
    out = Path(out)
    bos, eos = ends(tokenizer, bos, eos)
    plan: dict = {
        "version": VERSION,
        "inputs": [{"file": str(f), "bytes": f.stat().st_size, "sha256": _sha256(f)} for f in files],
        "tokenizer": {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size},
        "settings": {"heldout": heldout, "shard_tokens": shard_tokens, "column": column, "bos": bos, "eos": eos},
    }
    out.mkdir(parents=True, exist_ok=True)
    if (out / "index.json").is_file():
        index = json.loads((out / "index.json").read_text(encoding="utf-8"))
        if all(index.get(k) == v for k, v in plan.items()):
            return index
        raise ValueError(f"{out} holds a finished corpus of other inputs or settings; choose another folder")
    records = _records(out, plan)
    seen = {h for r in records for h in _hashes(out, r["number"])}
    skip = tuple(records[-1]["cursor"]) if records else (0, 0)
    shard = _Shard()
    total = sum(i["bytes"] for i in plan["inputs"])
    for file_index, number, text, done in _walk(files, skip, column):
        _add(shard, text, seen, tokenizer, heldout, bos, eos)
        if progress is not None:
            progress(done, total)
        if shard.tokens >= shard_tokens:
            records.append(_flush(out, shard, len(records), (file_index, number + 1), tokenizer.vocab_size))
            shard = _Shard()
    if shard.hashes or shard.duplicates or not records:
        records.append(_flush(out, shard, len(records), (len(files), 0), tokenizer.vocab_size))
    index = plan | _summary(records, tokenizer.vocab_size)
    if index["splits"]["train"]["tokens"] == 0:
        raise ValueError(f"no training text in {len(files)} files: all documents are empty or held out")
    tokenizer.save(out / "tokenizer")
    _write_json(out / "index.json", index)
    return index


def _walk(files: Sequence[Path], skip: tuple, column: str) -> Iterator[tuple[int, int, str, int]]:
    """(file, document number, text, bytes read) from the cursor on."""
    done = sum(f.stat().st_size for f in files[: skip[0]])
    for i in range(skip[0], len(files)):
        begun = done
        for number, text in enumerate(documents(files[i], column)):
            if (i, number) >= tuple(skip):
                size = len(text.encode("utf-8", "surrogatepass"))
                done = min(done + size, begun + files[i].stat().st_size)
                yield i, number, text, done
        done = begun + files[i].stat().st_size


def _add(shard: _Shard, text: str, seen: set[bytes], tokenizer, heldout: float, bos: bool, eos: bool) -> None:
    coded = text.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(coded).digest()[:16]
    if digest in seen or not text.strip():
        shard.duplicates += digest in seen
        return
    seen.add(digest)
    split = "heldout" if is_heldout(text, heldout) else "train"
    ids = np.array(tokenizer.encode(text, bos=bos, eos=eos, specials=False), token_dtype(tokenizer.vocab_size))
    shard.ids[split].append(ids)
    shard.bytes[split] += len(coded)
    shard.hashes.append(digest)
    shard.tokens += len(ids)


def _flush(out: Path, shard: _Shard, number: int, cursor: tuple[int, int], vocab_size: int) -> dict:
    """Write one shard; its record comes last, so a half-written shard is never believed."""
    record: dict = {"number": number, "cursor": list(cursor), "duplicates": shard.duplicates, "splits": {}}
    for split, parts in shard.ids.items():
        name = f"{split}-{number:05d}.bin"
        ids = np.concatenate(parts) if parts else np.zeros(0, token_dtype(vocab_size))
        ids.tofile(out / name)
        np.save((out / name).with_suffix(".offsets.npy"), np.cumsum([0, *map(len, parts)]).astype(np.int64))
        record["splits"][split] = {
            "file": name,
            "tokens": len(ids),
            "documents": len(parts),
            "bytes": shard.bytes[split],
            "sha256": hashlib.sha256(ids.tobytes()).hexdigest(),
        }
    (out / f"hashes-{number:05d}.bin").write_bytes(b"".join(shard.hashes))
    _write_json(out / f"shard-{number:05d}.json", record)
    return record


def _records(out: Path, plan: dict) -> list[dict]:
    """Records of whole shards of an earlier call; the plan is written if there was none."""
    path = out / "plan.json"
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != plan:
            raise ValueError(f"{out} was begun with other inputs or settings; choose another folder or delete it")
    else:
        _write_json(path, plan)
    records: list[dict] = []
    while (record := out / f"shard-{len(records):05d}.json").is_file():
        records.append(json.loads(record.read_text(encoding="utf-8")))
    return records


def _hashes(out: Path, number: int) -> Iterator[bytes]:
    data = (out / f"hashes-{number:05d}.bin").read_bytes()
    return (data[a : a + 16] for a in range(0, len(data), 16))


def _summary(records: list[dict], vocab_size: int) -> dict:
    splits = {}
    for split in SPLITS:
        shards = [r["splits"][split] for r in records]
        splits[split] = {k: sum(s[k] for s in shards) for k in ("tokens", "documents", "bytes")}
        splits[split]["shards"] = shards
    duplicates = sum(r["duplicates"] for r in records)
    return {"dtype": token_dtype(vocab_size), "splits": splits, "duplicates_removed": duplicates}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, content: dict) -> None:
    """Whole or not at all: written beside, then renamed."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
