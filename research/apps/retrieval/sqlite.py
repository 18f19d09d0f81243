"""A store in one SQLite file: vectors, text, metadata and a full-text index, changed together or not at all."""

import json
import secrets
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from . import checked
from .document import Chunk
from .store import Entry, Hit, Where
from .vector_index import VectorIndex
from .where import COLUMNS, conditions
from .words import words

_APPLICATION = 0x4C435253  # "LCRS", in the header of the file
_SCHEMA = f"""
BEGIN IMMEDIATE;
PRAGMA application_id = {_APPLICATION};
CREATE TABLE facts (name TEXT PRIMARY KEY, value NOT NULL);
CREATE TABLE documents (source TEXT PRIMARY KEY, digest TEXT NOT NULL);
CREATE TABLE chunks (
  number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, source TEXT NOT NULL REFERENCES documents, title TEXT NOT NULL,
  heading TEXT NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL, text TEXT NOT NULL, metadata TEXT NOT NULL,
  vector BLOB NOT NULL
);
CREATE INDEX by_source ON chunks (source, start);
CREATE VIRTUAL TABLE words USING fts5 (
  title, heading, text, content = 'chunks', content_rowid = 'number', tokenize = 'porter unicode61'
);
CREATE TRIGGER written AFTER INSERT ON chunks BEGIN
  INSERT INTO words (rowid, title, heading, text) VALUES (new.number, new.title, new.heading, new.text);
END;
CREATE TRIGGER deleted AFTER DELETE ON chunks BEGIN
  INSERT INTO words (words, rowid, title, heading, text)
  VALUES ('delete', old.number, old.title, old.heading, old.text);
END;
"""
_FIELDS = 'text, source, start, "end", title, heading, metadata'


class SQLiteStore:
    """A `Store` in a file; several threads and processes may use it.

    A search is exact up to `exact_to` chunks, above that by `VectorIndex` in a file beside; with a filter always exact.
    """

    def __init__(self, path: str | Path, *, embedder: str, width: int, exact_to: int = 100_000) -> None:
        """Opens a store, or begins one where there is no file.

        Raises:
          ValueError: no store, a corrupted one, or one of another embedder or width.
        """
        self.path, self.embedder, self.width, self._exact_to = Path(path), embedder, width, exact_to
        if not self.path.parent.is_dir():
            raise ValueError(f"no folder {self.path.parent} for a store")
        self._lock = threading.RLock()
        self._all: tuple[str, np.ndarray, np.ndarray] | None = None
        self._index = VectorIndex(self.path)
        self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._db.close)
        with self._use() as db:
            self._open(db)

    def _open(self, db: sqlite3.Connection) -> None:
        application = db.execute("PRAGMA application_id").fetchone()[0]
        if not application and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            # A reader never waits for a writer, and a killed writer leaves nothing behind.
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)
            facts = [("embedder", self.embedder), ("width", self.width), ("version", "")]
            db.executemany("INSERT INTO facts VALUES (?, ?)", facts)
            db.execute("COMMIT")
        elif application != _APPLICATION:
            raise ValueError(f"{self.path} is a database of something else, no store")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        has = dict(db.execute("SELECT name, value FROM facts"))
        checked.made_by(self.path, has["embedder"], has["width"], self.embedder, self.width)

    def upsert(self, entries: Sequence[Entry]) -> None:
        """See `Store.upsert`: one transaction."""
        checked.entries(entries, self.width)
        with self._write() as db:
            for source, digest, chunks, vectors in entries:
                self._delete(db, source)
                db.execute("INSERT INTO documents VALUES (?, ?)", (source, digest))
                db.executemany(
                    f"INSERT INTO chunks (id, {_FIELDS}, vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        (*_row(chunk), vector.tobytes())
                        for chunk, vector in zip(chunks, np.asarray(vectors, "<f4"), strict=True)
                    ),
                )

    def delete(self, sources: Sequence[str]) -> None:
        """See `Store.delete`: one transaction."""
        with self._write() as db:
            for source in sources:
                self._delete(db, source)

    def search(self, vector: np.ndarray, k: int, where: Where | None = None) -> list[Hit]:
        """See `Store.search`."""
        query = checked.vector(vector, self.width, k)
        with self._use() as db:
            if not where and len(self) > self._exact_to:
                self.index()
                found = self._index.search(query, k)
            else:
                numbers, vectors = self._vectors(db, where)
                scores = vectors @ query
                best = np.argpartition(-scores, k - 1)[:k] if k < len(scores) else np.arange(len(scores))
                best = best[np.lexsort((numbers[best], -scores[best]))]
                found = [(int(numbers[i]), float(scores[i])) for i in best]
            rows = [db.execute(f"SELECT {_FIELDS} FROM chunks WHERE number = ?", (n,)).fetchone() for n, _ in found]
        # Another process may have taken one out in between.
        return [Hit(_chunk(row), score) for row, (_, score) in zip(rows, found, strict=True) if row]

    def text_search(self, query: str, k: int, where: Where | None = None) -> list[Hit]:
        """See `Store.text_search`: any word of the query, by FTS5 over stems, with a k1, b and idf of its own."""
        if not (asked := words(query)):
            return []
        condition, values = _sql(where)
        with self._use() as db:
            rows = db.execute(
                "WITH found AS (SELECT rowid AS number, bm25(words) AS rank FROM words WHERE words MATCH ?) "
                f"SELECT rank, {_FIELDS} FROM found JOIN chunks USING (number) WHERE {condition} ORDER BY rank LIMIT ?",
                (" OR ".join(f'"{word}"' for word in asked), *values, k),
            ).fetchall()
        return [Hit(_chunk(row[1:]), -row[0]) for row in rows]

    def get(self, where: Where | None = None) -> list[Chunk]:
        """See `Store.get`."""
        condition, values = _sql(where)
        with self._use() as db:
            rows = db.execute(f"SELECT {_FIELDS} FROM chunks WHERE {condition} ORDER BY source, start", values)
            return [_chunk(row) for row in rows]

    def sources(self) -> dict[str, str]:
        """See `Store.sources`."""
        with self._use() as db:
            return dict(db.execute("SELECT source, digest FROM documents"))

    def version(self) -> str:
        """See `Store.version`."""
        with self._use() as db:
            return db.execute("SELECT value FROM facts WHERE name = 'version'").fetchone()[0]

    def index(self) -> None:
        """See `Store.index`: nothing up to `exact_to` chunks."""
        with self._use() as db:
            if len(self) > self._exact_to and not self._index.load(version := self.version()):
                self._index.build(version, *self._vectors(db, None))
                self._all = None  # the index has its own copy

    def __len__(self) -> int:
        with self._use() as db:
            return db.execute("SELECT count(*) FROM chunks").fetchone()[0]

    def close(self) -> None:
        """See `Store.close`."""
        self._db.close()

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.OperationalError as error:  # locked, or a full disk
                raise ValueError(f"{self.path}: {error}") from None
            except sqlite3.DatabaseError as error:
                raise ValueError(f"{self.path} is no store, or corrupted: {error}") from None

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._use() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("UPDATE facts SET value = ? WHERE name = 'version'", (secrets.token_hex(8),))
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @staticmethod
    def _delete(db: sqlite3.Connection, source: str) -> None:
        db.execute("DELETE FROM chunks WHERE source = ?", (source,))
        db.execute("DELETE FROM documents WHERE source = ?", (source,))

    def _vectors(self, db: sqlite3.Connection, where: Where | None) -> tuple[np.ndarray, np.ndarray]:
        """Numbers [N] and vectors [N, width]; without a filter they stay in memory until the store changes."""
        version = self.version()
        if not where and self._all and self._all[0] == version:
            return self._all[1:]
        condition, values = _sql(where)
        rows = db.execute(f"SELECT number, vector FROM chunks WHERE {condition} ORDER BY number", values).fetchall()
        content = b"".join(blob for _, blob in rows)
        if len(content) != len(rows) * self.width * 4:
            raise ValueError(f"{self.path} is corrupted: it has vectors of another width than {self.width}")
        numbers = np.array([number for number, _ in rows], np.int64)
        vectors = np.frombuffer(content, "<f4").reshape(len(rows), self.width)
        if not where:
            self._all = version, numbers, vectors
        return numbers, vectors


def _row(chunk: Chunk) -> tuple:
    metadata = json.dumps(dict(chunk.metadata), allow_nan=False)
    return chunk.id, chunk.text, chunk.source, chunk.start, chunk.end, chunk.title, chunk.heading, metadata


def _chunk(row: tuple) -> Chunk:
    text, source, start, end, title, heading, metadata = row
    return Chunk(text, source, start, end, title, heading, json.loads(metadata))


def _sql(where: Where | None) -> tuple[str, list]:
    """A condition with its values."""
    parts, values = ["true"], []
    for field, op, value in conditions(where):
        if field in COLUMNS:
            left = f'"{field}"'
        else:
            left = "json_extract(metadata, ?)"
            values.append(f'$."{field}"')
        given = value if op == "in" else [value]
        parts.append(f"{left} {op} " + (f"({', '.join('?' * len(given))})" if op == "in" else "?"))
        values += given
    return " AND ".join(parts), values
