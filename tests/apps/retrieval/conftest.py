"""Both databases behind one fixture."""

import pytest

from research.apps.retrieval.lance import LanceStore
from research.apps.retrieval.sqlite import SQLiteStore


@pytest.fixture(params=["sqlite", "lance"])
def open_store(request, tmp_path):
    """Opens, and opens again, the test's store."""
    if request.param == "lance":
        pytest.importorskip("lancedb", reason="the extra lancedb is not installed")
    kind = {"sqlite": SQLiteStore, "lance": LanceStore}[request.param]
    opened = []

    def open_one(embedder="hashed", width=32, **more):
        opened.append(kind(str(tmp_path / "store"), embedder=embedder, width=width, **more))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()
