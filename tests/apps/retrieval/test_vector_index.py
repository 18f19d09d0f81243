"""Indices of many vectors: as good as exact search on clustered vectors, and never stale."""

import sys

import numpy as np
import pytest

from research.apps.retrieval.document import Chunk
from research.apps.retrieval.lance import LanceStore
from research.apps.retrieval.sqlite import SQLiteStore
from research.apps.retrieval.store import Entry

WIDTH, NUMBER = 24, 8000


def clustered(seed, number):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(60, WIDTH))
    found = centres[rng.integers(0, 60, number)] + 0.4 * rng.normal(size=(number, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def put(store, source, vectors):
    chunks = [Chunk(f"{source} {i}", source, i, i + 1) for i in range(len(vectors))]
    store.upsert([Entry(source, "", chunks, vectors)])


@pytest.fixture
def opened(tmp_path):
    pytest.importorskip("faiss", reason="the extra rag is not installed")
    stores = []

    def one(exact_to):
        stores.append(SQLiteStore(tmp_path / "store", embedder="x", width=WIDTH, exact_to=exact_to))
        return stores[-1]

    yield one
    for store in stores:
        store.close()


def files(tmp_path):
    return {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.faiss")}


def test_it_finds_what_exact_search_finds(opened, tmp_path):
    exact, near = opened(NUMBER), opened(1000)
    vectors = clustered(0, NUMBER)
    put(exact, "a", vectors)
    shares = []
    for query in clustered(1, 50):
        right, found = exact.search(query, 10), near.search(query, 10)
        known = {hit.chunk.id: hit.score for hit in right}
        shares.append(len(known.keys() & {hit.chunk.id for hit in found}) / 10)
        for hit in found:
            np.testing.assert_allclose(hit.score, vectors[hit.chunk.start] @ query, atol=1e-5)
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert np.mean(shares) > 0.98
    assert len(files(tmp_path)) == 1
    query = clustered(2, 1)[0]  # with a filter it is exact
    where = {"start": {"<": 700}}
    assert near.search(query, 10, where) == exact.search(query, 10, where)


def test_it_is_built_once_and_again_when_stale_or_damaged(opened, tmp_path):
    first = opened(1000)
    vectors = clustered(0, 1500)
    put(first, "a", vectors)
    assert not files(tmp_path)
    first.index()
    built = files(tmp_path)
    assert len(built) == 1
    opened(1000).search(vectors[0], 3)
    assert files(tmp_path) == built
    new = -vectors[:1]
    put(opened(1000), "b", new)
    assert first.search(new[0], 1)[0].chunk.id == "b@0-1"
    rebuilt = files(tmp_path)
    assert len(rebuilt) == 1 and rebuilt.keys().isdisjoint(built)
    first.delete(["b"])
    assert first.search(new[0], 1)[0].chunk.source == "a"
    path = next(tmp_path.glob("*.faiss"))
    path.write_bytes(path.read_bytes()[:1000])
    assert opened(1000).search(vectors[7], 1)[0].chunk.id == "a@7-8"


def test_without_faiss_it_says_what_to_do(opened, monkeypatch):
    store = opened(10)
    put(store, "a", clustered(0, 20))
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"pip install lifecycle\[rag\], or open it with a greater exact_to"):
        store.search(np.ones(WIDTH), 3)


def test_lancedb_reads_few_lists_and_finds_the_same(tmp_path):
    pytest.importorskip("lancedb", reason="the extra lancedb is not installed")
    exact, near = (
        LanceStore(str(tmp_path / "store"), embedder="x", width=WIDTH, exact_to=exact_to) for exact_to in (10**6, 1000)
    )
    noise = np.random.default_rng(5).normal(size=(3020, WIDTH))
    put(exact, "a", np.concatenate([clustered(0, 2000), noise[20:] / np.linalg.norm(noise[20:], axis=1)[:, None]]))
    for _ in range(2):  # the second time it is only brought up to date
        near.index()

    def recall(queries):
        names = [[{hit.chunk.id for hit in store.search(q, 10)} for q in queries] for store in (exact, near)]
        return np.mean([len(right & found) / 10 for right, found in zip(*names, strict=True)])

    assert recall(clustered(1, 20)) > 0.95
    assert recall(noise[:20]) < 1  # else every list was read
    new = -clustered(0, 1)
    put(exact, "b", new)
    assert near.search(new[0], 1)[0].chunk.id == "b@0-1"
