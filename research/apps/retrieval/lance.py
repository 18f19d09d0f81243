"""A store in LanceDB, for what outgrows one machine: a folder or object storage, an index of vectors on disk."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np

from . import checked
from .document import Chunk
from .store import Entry, Hit, Where
from .where import COLUMNS, conditions

_FIELDS = ["text", "source", "start", "end", "title", "heading", "metadata"]
_TABLE = "chunks"


class LanceStore:
    """A `Store` at an address that LanceDB knows: a folder, s3://..., gs://..., az://...

    A search is exact up to `exact_to` chunks and with a filter; above that it goes through an IVF index of bytes, once
    `index` has built one, and reads `refine` times k whole vectors to put its candidates in order.
    """

    def __init__(self, uri: str, *, embedder: str, width: int, exact_to: int = 100_000, refine: int = 5) -> None:
        """Opens a store, or begins one.

        Raises:
          ValueError: LanceDB is missing, the store is corrupted, or of another embedder or width.
        """
        try:
            import lancedb
            import pyarrow
            from lancedb.index import FTS
        except ImportError:
            raise ValueError(f"{uri}: this store needs LanceDB: pip install lifecycle[lancedb]") from None
        self.uri, self.embedder, self.width, self._exact_to, self._refine = uri, embedder, width, exact_to, refine
        text, number = pyarrow.string(), pyarrow.int64()
        kinds = dict.fromkeys(("id", "digest", "passage", "text", "source", "title", "heading"), text)
        kinds |= {"start": number, "end": number, "metadata": pyarrow.json_()}
        kinds |= {"vector": pyarrow.list_(pyarrow.float32(), width)}
        self._schema = pyarrow.schema(kinds, {"embedder": embedder, "width": str(width)})
        self._arrow = pyarrow
        with self._use():
            db = lancedb.connect(uri, read_consistency_interval=timedelta(0))
            if _TABLE in db.list_tables().tables:
                self._table = db.open_table(_TABLE)
            else:
                self._table = db.create_table(_TABLE, schema=self._schema)
            if not self._table.list_indices():
                self._table.create_index("passage", config=FTS())
            has = {key.decode(): value.decode() for key, value in (self._table.schema.metadata or {}).items()}
        checked.made_by(uri, has.get("embedder", ""), int(has.get("width", 0)), embedder, width)

    def upsert(self, entries: Sequence[Entry]) -> None:
        """See `Store.upsert`: one version of the table."""
        checked.entries(entries, self.width)
        if entries:
            rows = [_row(entry, chunk) for entry in entries for chunk in entry.chunks]
            vectors = np.concatenate([np.asarray(entry.vectors, np.float32) for entry in entries])
            columns = {name: [row[name] for row in rows] for name in self._schema.names if name != "vector"}
            columns["vector"] = self._arrow.FixedSizeListArray.from_arrays(vectors.reshape(-1), self.width)
            given = self._arrow.table(columns, schema=self._schema)
            old = f"source IN ({', '.join(_quoted(entry.source) for entry in entries)})"
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            with self._use():
                merge.when_not_matched_by_source_delete(old).execute(given)

    def delete(self, sources: Sequence[str]) -> None:
        """See `Store.delete`: one version of the table."""
        if sources:
            with self._use():
                self._table.delete(f"source IN ({', '.join(map(_quoted, sources))})")

    def search(self, vector: np.ndarray, k: int, where: Where | None = None) -> list[Hit]:
        """See `Store.search`."""
        indexed = not where and len(self) > self._exact_to
        with self._use():
            query: Any = self._table.search(checked.vector(vector, self.width, k))
            query = query.distance_type("dot")
            query = query.refine_factor(self._refine) if indexed else query.bypass_vector_index()
            rows = self._found(query, k, where, "_distance")
        return [Hit(_chunk(row), 1 - row["_distance"]) for row in rows]

    def text_search(self, query: str, k: int, where: Where | None = None) -> list[Hit]:
        """See `Store.text_search`: any word of the query, by LanceDB's index of passages."""
        rows = self._found(self._table.search(query, query_type="fts"), k, where, "_score") if query.strip() else []
        return [Hit(_chunk(row), row["_score"]) for row in rows]

    def get(self, where: Where | None = None) -> list[Chunk]:
        """See `Store.get`."""
        rows = self._found(self._table.search(), len(self) + 1, where)
        return sorted(map(_chunk, rows), key=lambda chunk: (chunk.source, chunk.start))

    def sources(self) -> dict[str, str]:
        """See `Store.sources`."""
        with self._use():
            rows = self._table.search().select(["source", "digest"]).limit(len(self) + 1).to_list()
        return {row["source"]: row["digest"] for row in rows}

    def version(self) -> str:
        """See `Store.version`."""
        with self._use():
            return str(self._table.version)

    def index(self) -> None:
        """See `Store.index`: brings the indices up to date and drops versions that are a day old."""
        from lancedb.index import IvfSq

        with self._use():
            if len(self) > self._exact_to and not any(i.columns == ["vector"] for i in self._table.list_indices()):
                # Of LanceDB's own lists a search reads all up to 100,000 vectors, and `optimize` joins small ones to
                # such unless the size was asked for.
                size = round(len(self) ** 0.5)
                self._table.create_index("vector", config=IvfSq(distance_type="dot", target_partition_size=size))
            self._table.optimize(cleanup_older_than=timedelta(days=1))

    def __len__(self) -> int:
        with self._use():
            return self._table.count_rows()

    def close(self) -> None:
        """See `Store.close`: LanceDB holds nothing open."""

    @contextmanager
    def _use(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError) as error:  # without the place in LanceDB's own source
            reason = str(error).splitlines()[0].split(", /")[0]
            raise ValueError(f"{self.uri} is no store, corrupted, or cannot do this: {reason}") from None

    def _found(self, query: Any, k: int, where: Where | None, *score: str) -> list[dict[str, Any]]:
        if where:
            query = query.where(_sql(where), **({"prefilter": True} if score else {}))
        with self._use():
            return query.select([*_FIELDS, *score]).limit(k).to_list()


def _row(entry: Entry, chunk: Chunk) -> dict[str, Any]:
    fields = {name: getattr(chunk, name) for name in _FIELDS}
    metadata = json.dumps(dict(chunk.metadata), allow_nan=False)
    return fields | {"id": chunk.id, "digest": entry.digest, "passage": chunk.passage, "metadata": metadata}


def _chunk(row: dict[str, Any]) -> Chunk:
    return Chunk(**{name: row[name] for name in _FIELDS[:-1]}, metadata=json.loads(row["metadata"]))


def _sql(where: Where) -> str:
    parts = []
    for field, op, value in conditions(where):
        kind = value[0] if op == "in" else value
        read = "string" if isinstance(kind, str) else "bool" if isinstance(kind, bool) else "float"
        left = f"`{field}`" if field in COLUMNS else f"json_get_{read}(metadata, '{field}')"
        parts.append(f"{left} {op} " + (f"({', '.join(map(_quoted, value))})" if op == "in" else _quoted(value)))
    return " AND ".join(parts)


def _quoted(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
