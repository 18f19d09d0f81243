"""Both stores against a plain dict and plain loops over it; what they share is said here once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from research.apps.retrieval.document import Chunk
from research.apps.retrieval.store import Entry

WORDS = ["wing", "slipstream", "drag", "lift", "mach", "heat", "plate", "shock", "layer", "flow"]
FILTERS = {
    "equality": ({"year": 1955}, lambda c: c.metadata["year"] == 1955),
    "text": ({"tag": "it's"}, lambda c: c.metadata["tag"] == "it's"),
    "truth": ({"open": True}, lambda c: c.metadata["open"]),
    "several": ({"tag": ["it's", "none"]}, lambda c: c.metadata["tag"] == "it's"),
    "numbers": ({"year": (1951, 1952)}, lambda c: c.metadata["year"] in (1951, 1952)),
    "range": ({"year": {">": 1951, "<=": 1955}}, lambda c: 1951 < c.metadata["year"] <= 1955),
    "fraction": ({"weight": {"<": 0.5}}, lambda c: c.metadata["weight"] < 0.5),
    "fields": ({"start": {">=": 10}, "heading": "h1"}, lambda c: c.start >= 10 and c.heading == "h1"),
    "source": ({"source": "it's 3"}, lambda c: c.source == "it's 3"),
    "nothing": ({"year": 2055}, lambda c: False),
    "no such key": ({"century": 20}, lambda c: False),
}


def entry(rng, source):
    number = int(rng.integers(1, 5))
    metadata = {
        "year": int(rng.integers(1950, 1958)),
        "tag": str(rng.choice(["it's", 'a "b"'])),
        "open": bool(rng.integers(2)),
        "weight": float(rng.random()),
    }
    chunks = [
        Chunk(" ".join(rng.choice(WORDS, 6)), source, 10 * i, 10 * i + 9, "title", f"h{i}", metadata)
        for i in range(number)
    ]
    vectors = rng.normal(size=(number, 32)).astype(np.float32)
    return Entry(source, str(rng.integers(1000)), chunks, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def expected(kept, query, k, fits=lambda chunk: True):
    found = [(c, float(v @ query)) for e in kept.values() for c, v in zip(e.chunks, e.vectors, strict=True) if fits(c)]
    return sorted(found, key=lambda pair: -pair[1])[:k]


def same(hits, pairs):
    assert [hit.chunk for hit in hits] == [chunk for chunk, _ in pairs]
    np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in pairs], atol=2e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_any_history_leaves_what_a_dict_would_hold(open_store, seed):
    rng = np.random.default_rng(seed)
    store, kept = open_store(), {}
    for step in range(8):
        if step % 3 == 2:
            gone = [f"it's {i}" for i in rng.integers(0, 12, 3)]
            store.delete(gone)
            kept = {name: e for name, e in kept.items() if name not in gone}
        else:
            entries = [entry(rng, f"it's {i}") for i in rng.choice(12, 5, replace=False)]
            store.upsert(entries)
            kept |= {e.source: e for e in entries}
        if step == 4:
            store.close()
            store = open_store()
        assert store.sources() == {e.source: e.digest for e in kept.values()}
        assert len(store) == sum(len(e.chunks) for e in kept.values())
        assert store.get() == [c for name in sorted(kept) for c in kept[name].chunks]
        query = rng.normal(size=32).astype(np.float32)
        for k in (1, 4, 1000):
            same(store.search(query, k), expected(kept, query, k))


def test_filters_are_those_of_a_loop(open_store):
    rng = np.random.default_rng(5)
    store, kept = open_store(), {f"it's {i}": entry(rng, f"it's {i}") for i in range(40)}
    store.upsert(list(kept.values()))
    query = rng.normal(size=32).astype(np.float32)
    for where, fits in FILTERS.values():
        same(store.search(query, 7, where), expected(kept, query, 7, fits))
        assert {c.id for c in store.get(where)} == {c.id for e in kept.values() for c in e.chunks if fits(c)}
        found = store.text_search("wing", 1000, where)
        assert {h.chunk.id for h in found} == {c.id for c in store.get(where) if "wing" in c.text.split()}
    same(
        store.search(query, 3, {"id": [c.id for c in store.get({"source": "it's 7"})]}),
        expected(kept, query, 3, lambda c: c.source == "it's 7"),
    )


def test_text_search(open_store):
    store = open_store()
    texts = ["the wing of a bird", "drag and lift of a wing in a slipstream", "heat", 'say "no" AND (maybe']
    vectors = np.eye(4, 32, dtype=np.float32)
    store.upsert(
        [Entry(f"d{i}", "", [Chunk(text, f"d{i}", 0, 9, "Report")], vectors[i : i + 1]) for i, text in enumerate(texts)]
    )
    assert [hit.chunk.text for hit in store.text_search("wing slipstream", 5)] == [texts[1], texts[0]]
    assert len(store.text_search("report", 5)) == 4
    assert store.text_search("nowhere", 5) == store.text_search("  ", 5) == []
    for query in ('"no" AND (', "NEAR/2 ***", "wing OR", "col:wing -lift", "'; DROP TABLE chunks", "é漢"):
        store.text_search(query, 5)
    scores = [hit.score for hit in store.text_search("wing lift maybe", 5)]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0


def test_an_empty_store_finds_nothing(open_store):
    store = open_store()
    assert store.search(np.ones(32), 5) == store.text_search("wing", 5) == store.get() == []
    assert (len(store), store.sources()) == (0, {})
    store.upsert([])
    store.delete(["nothing"])
    store.index()


def test_others_see_what_was_written_and_versions_tell(open_store):
    rng = np.random.default_rng(0)
    writer, reader = open_store(), open_store()
    versions = [reader.version()]
    query = np.ones(32, np.float32)
    for name in "abc":
        given = entry(rng, name)
        writer.upsert([given])
        assert {h.chunk.source for h in reader.search(query, 100)} == set("abc"[: "abc".index(name) + 1])
        versions.append(reader.version())
    writer.delete(["a"])
    versions.append(reader.version())
    assert len(set(versions)) == 5 and reader.version() == versions[-1] == writer.version()


def test_a_refused_call_changes_nothing(open_store):
    rng = np.random.default_rng(0)
    store = open_store()
    good, bad = entry(rng, "a"), entry(rng, "b")
    store.upsert([good])
    version = store.version()
    nan = [Chunk("text", "b", 0, 4, metadata={"weight": float("nan")})]
    for wrong in (bad._replace(vectors=bad.vectors[:, :5]), bad._replace(chunks=nan, vectors=bad.vectors[:1])):
        with pytest.raises(ValueError):
            store.upsert([entry(rng, "a"), wrong])
        assert (store.get(), store.version()) == (list(good.chunks), version)


@pytest.mark.parametrize("open_store", ["sqlite"], indirect=True)
def test_threads_and_connections_may_share_it(open_store):
    stores = [open_store(), open_store()]
    vectors = np.eye(20, 32, dtype=np.float32)

    def work(number):
        store, source = stores[number % 2], f"d{number % 10}"
        store.upsert([Entry(source, str(number), [Chunk("a wing", source, 0, 6)], vectors[number % 10][None])])
        hit = store.search(vectors[number % 10], 1)[0]
        assert store.text_search("wing", 100) and store.sources()[source]
        return hit.chunk.source == source

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(60)))
    assert len(stores[0]) == len(stores[1]) == 10
