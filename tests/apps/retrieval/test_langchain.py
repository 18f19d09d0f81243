"""Our store as a retriever of LangChain's, called as its chains call one."""

import pytest

from research.apps.langchain_retriever import as_langchain
from research.apps.retrieval.chunks import Chunker
from research.apps.retrieval.document import Document
from research.apps.retrieval.retriever import Retriever
from research.apps.retrieval.sqlite import SQLiteStore
from research.apps.retrieval.store import Entry
from tests.apps.retrieval.hashed import Hashed


@pytest.mark.oracle
def test_a_chain_reads_our_store(tmp_path):
    pytest.importorskip("langchain_core")
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import RunnableLambda

    store, embed = SQLiteStore(tmp_path / "store", embedder="hashed", width=32), Hashed()
    texts = {"a.md": "wings lift", "b.md": "plates get hot", "c.md": "shocks are thin"}
    for source, text in texts.items():
        chunks = Chunker()(Document(source, text, "T", metadata={"year": 1958}))
        store.upsert([Entry(source, "", chunks, embed([c.passage for c in chunks]))])
    retriever = Retriever(store, embed, "hybrid")
    theirs = as_langchain(retriever, k=2)
    assert isinstance(theirs, BaseRetriever)
    chain = theirs | RunnableLambda(lambda found: [(d.id, d.page_content, d.metadata["score"]) for d in found])
    expected = [(hit.chunk.id, hit.chunk.text, hit.score) for hit in retriever("which wings lift", 2)]
    assert chain.invoke("which wings lift") == expected
    first = theirs.invoke("hot plates")[0]
    wanted = {"source": "b.md", "title": "T", "heading": "", "start": 0, "end": 14, "year": 1958}
    assert first.metadata.items() >= wanted.items()
    store.close()
