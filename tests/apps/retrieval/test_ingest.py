"""Ingestion: only what changed, bad files beside good ones, kills at any moment."""

import io
import json
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from research.apps.retrieval.chunks import Chunker
from research.apps.retrieval.document import Document
from research.apps.retrieval.files import Unread, folder
from research.apps.retrieval.ingest import ingest
from tests.apps.retrieval import ingesting
from tests.apps.retrieval.hashed import Hashed

ROOT = Path(__file__).resolve().parents[3]
CHUNKER = ingesting.CHUNKER


def write(path, number=60):
    rng = random.Random(0)
    words = ["wing", "slipstream", "drag", "lift", "mach", "heat", "plate", "shock", "layer", "flow"]
    rows = [{"id": i, "text": " ".join(rng.choices(words, k=rng.randrange(5, 60)))} for i in range(number)]
    path.mkdir()
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "note.md").write_text("# Lift\nWhat a wing does.\n")


def whole(store, path):
    """Every stored document is there with all of its chunks, their vectors and their words; returns the documents."""
    embed, stored = Hashed(), store.sources()
    chunks = [c for unread in folder(path) if unread.source in stored for c in CHUNKER(unread.read())]
    assert store.get() == sorted(chunks, key=lambda c: (c.source, c.start))
    for chunk in chunks[::7]:
        hit = store.search(embed([chunk.passage])[0], 1)[0]
        assert (hit.chunk.passage, round(hit.score, 5)) == (chunk.passage, 1)
    assert len(store.text_search("shock", 10_000)) == sum("shock" in chunk.passage.split() for chunk in chunks)
    return set(stored)


def test_only_what_changed_is_read_and_embedded(open_store, tmp_path):
    docs, store, embed = tmp_path / "docs", open_store(), Hashed()
    write(docs)

    def run(chunker=CHUNKER):
        embed.seen = 0
        done = ingest(folder(docs), store, embed, chunker, batch=50)
        return done.added, done.changed, done.unchanged, done.removed, done.chunks == embed.seen

    assert run() == (61, 0, 0, 0, True)
    assert run() == (0, 0, 61, 0, True) and embed.seen == 0
    (docs / "note.md").write_text("# Lift\nWhat wings do.\n")
    (docs / "new.txt").write_text("a new one")
    assert run() == (1, 1, 60, 0, True)
    (docs / "rows.jsonl").write_text("\n".join((docs / "rows.jsonl").read_text().splitlines()[10:]))
    assert run() == (0, 0, 52, 10, True) and embed.seen == 0
    assert len(whole(store, docs)) == 52
    assert run(Chunker("sentences", size=30, overlap=0)) == (0, 52, 0, 0, True)


def test_one_bad_file_loses_nothing(open_store, tmp_path):
    docs, store = tmp_path / "docs", open_store()
    write(docs, 5)
    (docs / "bad.txt").write_bytes(b"\xff\xfe\x00\x81")
    with open(docs / "rows.jsonl", "a") as rows:
        rows.write('{"text": \n{"text": "the last", "id": 3}\n{"text": "one more"}\n')
    expected = [f"{docs}/bad.txt: binary", f"{docs}/rows.jsonl, line 6: no JSON", "rows.jsonl:3: a second document"]
    done = ingest(folder(docs), store, Hashed(), CHUNKER)
    assert (done.added, len(done.problems)) == (7, 3)
    assert all(problem.startswith(start) for problem, start in zip(done.problems, expected, strict=True))
    with pytest.raises(ValueError, match="binary") as caught:
        ingest(folder(docs), store, Hashed(), CHUNKER, unreadable="error")
    assert str(caught.value).splitlines() == done.problems
    assert len(store.sources()) == 7
    (docs / "note.md").write_bytes(b"\0\0")  # what was known of it is kept
    assert ingest(folder(docs), store, Hashed(), CHUNKER).removed == 0
    assert store.get({"source": "note.md"})


def test_a_document_without_text_loses_nothing(open_store):
    texts = {"a": "words", "b": " \n", "c": "more"}
    unread = [Unread(name, name, lambda name=name: Document(name, texts[name])) for name in texts]
    done = ingest(unread, open_store(), Hashed(), CHUNKER)
    assert (done.added, done.problems) == (2, ["b: there is no text in it"])


def test_collections_can_share_a_store(open_store, tmp_path):
    store = open_store()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(name)
        ingest(folder(tmp_path / name), store, Hashed(), CHUNKER, prune=False)
    assert set(store.sources()) == {"a.txt", "b.txt"}
    assert ingest(folder(tmp_path / "b"), store, Hashed(), CHUNKER).removed == 1


def test_progress_is_shown(open_store, tmp_path):
    write(tmp_path / "docs", 5)
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    ingest(folder(tmp_path / "docs"), open_store(), Hashed(), CHUNKER, console=console)
    assert "ingest" in console.file.getvalue() and "100%" in console.file.getvalue()


@pytest.mark.parametrize("open_store", ["sqlite", "lance"], indirect=True)
def test_kills_leave_whole_documents_and_the_rest_is_done_later(open_store, tmp_path, request):
    kind, docs = request.node.callspec.params["open_store"], tmp_path / "docs"
    write(docs)
    command = [sys.executable, "-m", "tests.apps.retrieval.ingesting", kind, str(tmp_path / "store"), str(docs)]
    rng, known = random.Random(1), set()
    for _ in range(3 if kind == "sqlite" else 1):  # importing LanceDB takes seconds
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(2):
                process.stdout.readline()  # the first batch is stored, the second is about to be
            time.sleep(rng.uniform(0, 0.01))
            process.kill()
        store = open_store()
        left = whole(store, docs)
        assert left > known or len(left) == 61
        known = left
        store.close()
    store, embed = open_store(), Hashed()
    done = ingest(folder(docs), store, embed, CHUNKER)
    assert (done.added, done.unchanged, done.changed) == (61 - len(known), len(known), 0)
    assert whole(store, docs) == {unread.source for unread in folder(docs)}


@pytest.mark.parametrize("open_store", ["sqlite"], indirect=True)
def test_a_kill_inside_a_transaction(open_store, tmp_path):
    docs = tmp_path / "docs"
    write(docs)
    command = [sys.executable, "-m", "tests.apps.retrieval.ingesting", "dying", str(tmp_path / "store"), str(docs)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == -9 and len(result.stdout.splitlines()) >= 2, result.stderr
    store = open_store()
    assert 0 < len(whole(store, docs)) < 25
    store.close()
    with sqlite3.connect(tmp_path / "store") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")  # FTS5 raises if its index is not the text
    db.close()


def test_the_killed_process_runs_without_jax():
    code = "import sys, tests.apps.retrieval.ingesting; sys.exit('jax' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_vectors_belong_to_their_chunks(open_store, tmp_path):
    write(tmp_path / "docs")
    store, embed = open_store(), Hashed()
    ingest(folder(tmp_path / "docs"), store, embed, CHUNKER, batch=40)
    for chunk in store.get()[::9]:
        found = store.search(embed([chunk.passage])[0], 1, {"id": chunk.id})
        np.testing.assert_allclose(found[0].score, 1, atol=1e-5)
