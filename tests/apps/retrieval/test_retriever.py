"""Retrieval by vectors, by words and by both, against the parts it is made of."""

import numpy as np
import pytest

from research.apps.retrieval.bm25 import BM25
from research.apps.retrieval.chunks import Chunker
from research.apps.retrieval.document import Document
from research.apps.retrieval.fusion import reciprocal_rank
from research.apps.retrieval.retriever import KINDS, Retriever, by_source
from research.apps.retrieval.store import Entry
from tests.apps.retrieval.hashed import Hashed

WORDS = ["wing", "slipstream", "drag", "lift", "mach", "heat", "plate", "shock", "layer", "flow"]
QUESTION = "lift of a wing in a slipstream"


@pytest.fixture
def store(open_store):
    store, embed, rng = open_store(), Hashed(), np.random.default_rng(3)
    entries = []
    for i in range(40):
        document = Document(f"d{i:02}", " ".join(rng.choice(WORDS, 14)), f"title {i}", metadata={"even": i % 2 == 0})
        chunks = Chunker("tokens", size=8, overlap=0)(document)
        entries.append(Entry(document.source, "", chunks, embed([c.passage for c in chunks])))
    store.upsert(entries)
    return store


def names(hits):
    return [hit.chunk.id for hit in hits]


def words_ranking(store):
    chunks = store.get()
    scores = BM25([c.passage for c in chunks]).scores(QUESTION)
    return [(chunks[i], scores[i]) for i in np.argsort(-scores, kind="stable") if scores[i] > 0]


def test_every_kind_is_its_own_ranking(store):
    embed = Hashed()
    dense = store.search(embed([QUESTION])[0], 30)
    by_words = words_ranking(store)[:30]
    assert Retriever(store, embed, "dense")(QUESTION, 7) == dense[:7]
    found = Retriever(store, None, "bm25")(QUESTION, 7)
    assert [(h.chunk, h.score) for h in found] == by_words[:7]
    fused = reciprocal_rank([names(dense), [c.id for c, _ in by_words]])
    found = Retriever(store, embed, "hybrid", depth=30)(QUESTION, 7)
    assert [(h.chunk.id, h.score) for h in found] == fused[:7]
    assert names(found) != names(dense[:7]) != [c.id for c, _ in by_words[:7]]


@pytest.mark.parametrize("kind", KINDS)
def test_filters_hold(store, kind):
    retriever = Retriever(store, Hashed(), kind, depth=10)
    found = retriever(QUESTION, 10, {"even": True})
    assert len(found) == 10 and all(hit.chunk.metadata["even"] for hit in found)


def test_what_is_far_is_left_out(store):
    embed = Hashed()
    vector = embed([QUESTION])[0]
    cosines = {h.chunk.id: h.score for h in store.search(vector, 1000)}
    least = sorted(cosines.values())[-6] - 1e-4
    assert len(Retriever(store, embed, "dense", least=least)(QUESTION, 100)) == 6
    # By words alone many more are found, some of them by no vector among the first three.
    found = Retriever(store, embed, "hybrid", least=least, depth=3)(QUESTION, 100)
    assert found and all(cosines[h.chunk.id] >= least for h in found)
    deep = Retriever(store, embed, "hybrid", least=least)(QUESTION, 100)
    assert {h.chunk.id for h in deep} == {name for name, cosine in cosines.items() if cosine >= least}
    assert Retriever(store, embed, "hybrid", least=0.9999)(QUESTION, 5) == []
    scores = [score for _, score in words_ranking(store)]
    assert len(Retriever(store, None, "bm25", least=scores[4])(QUESTION, 100)) == sum(s >= scores[4] for s in scores)


def test_a_cross_encoder_ranks_anew(store):
    asked = []

    def rerank(question, passages):
        asked.append((question, list(passages)))
        return [passage.split().count("heat") for passage in passages]

    found = Retriever(store, Hashed(), "hybrid", depth=20, rerank=rerank)(QUESTION, 4)
    ((question, passages),) = asked
    assert question == QUESTION and len(passages) == 20
    best = sorted((p.split().count("heat") for p in passages), reverse=True)[:4]
    assert [h.score for h in found] == best == [h.chunk.passage.split().count("heat") for h in found]


def test_new_documents_are_found_by_words_too(store):
    retriever = Retriever(store, Hashed(), "bm25")
    assert retriever("zeppelin") == []
    chunks = Chunker("tokens")(Document("new", "a zeppelin"))
    store.upsert([Entry("new", "", chunks, Hashed()(["a zeppelin"]))])
    assert names(retriever("zeppelin")) == ["new@0-10"]
    store.delete(["new"])
    assert retriever("zeppelin") == []


def test_an_empty_store(open_store):
    for kind in KINDS:
        assert Retriever(open_store(), Hashed(), kind)(QUESTION) == []


def test_documents_are_as_good_as_their_best_chunk(store):
    hits = Retriever(store, Hashed(), "dense")(QUESTION, 50)
    best = by_source(hits)
    assert list(best) == list(dict.fromkeys(h.chunk.source for h in hits))
    assert all(best[h.chunk.source] >= h.score for h in hits) and best[hits[0].chunk.source] == hits[0].score
