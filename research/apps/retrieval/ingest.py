"""Documents into a store: only what changed, some documents at a time, going on where it was cut off."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import track

from . import checked
from .chunks import Chunker
from .document import Chunk
from .embed import Embed
from .files import Unread
from .store import Entry, Store


@dataclass
class Ingested:
    """What became of the documents.

    Attributes:
      problems: one line for each that could not be read; what the store had of it is kept.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    chunks: int = 0
    problems: list[str] = field(default_factory=list)


def ingest(
    documents: Iterable[Unread],
    store: Store,
    embed: Embed,
    chunker: Chunker,
    *,
    unreadable: str = "skip",
    prune: bool = True,
    batch: int = 256,
    console: Console | None = None,
) -> Ingested:
    """Makes a store hold these documents.

    A document is read if its hash, or the way of chunking, is another than at the last time. It is stored whole or not
    at all, so that after a kill the same call does what is left.

    Args:
      unreadable: after all others are stored, "skip" leaves those that cannot be read in `problems`, "error" raises.
      prune: takes out what the store has and `documents` has not.
      batch: about so many chunks are embedded and stored together. console: shows a progress bar.

    Raises:
      ValueError: another embedder than the store's, or, with unreadable="error", the problems.
    """
    if unreadable not in ("skip", "error"):
        raise ValueError(f"unknown unreadable={unreadable!r}; have ['error', 'skip']")
    checked.embedder("the store", store, embed)
    has, listed, done = store.sources(), list(documents), Ingested()
    waiting: list[tuple[str, str, list[Chunk]]] = []
    seen: set[str] = set()
    for source, content, read in track(listed, "ingest", console=console, disable=console is None):
        digest = f"{content} {chunker.name}"
        if source in seen:
            done.problems.append(f"{source}: a second document of that name")
        elif content and has.get(source) == digest:
            done.unchanged += 1
        else:
            try:
                if not (chunks := chunker(read())):
                    raise ValueError(f"{source}: there is no text in it")
            except ValueError as error:
                done.problems.append(str(error))
            else:
                waiting.append((source, digest, chunks))
                done.changed += source in has
                done.added += source not in has
                done.chunks += len(chunks)
        seen.add(source)
        if sum(len(chunks) for _, _, chunks in waiting) >= batch:
            _store(waiting, store, embed)
    _store(waiting, store, embed)
    if gone := sorted(set(has) - seen) if prune else []:
        store.delete(gone)
        done.removed = len(gone)
    store.index()
    if done.problems and unreadable == "error":
        raise ValueError("\n".join(done.problems))
    return done


def _store(waiting: list[tuple[str, str, list[Chunk]]], store: Store, embed: Embed) -> None:
    if not waiting:
        return
    vectors = embed([chunk.passage for _, _, chunks in waiting for chunk in chunks])
    entries, start = [], 0
    for source, digest, chunks in waiting:
        entries.append(Entry(source, digest, chunks, vectors[start : start + len(chunks)]))
        start += len(chunks)
    store.upsert(entries)
    waiting.clear()
