"""Bad input of documents, stores, retrieval and prompts: one clear line, and nothing is lost."""

import sqlite3

import numpy as np
import pytest

from research.apps.protocol import Options, Reply, Usage
from research.apps.retrieval.bm25 import BM25
from research.apps.retrieval.chunks import Chunker
from research.apps.retrieval.document import Chunk, Document
from research.apps.retrieval.files import folder
from research.apps.retrieval.ingest import ingest
from research.apps.retrieval.lance import LanceStore
from research.apps.retrieval.prompt import answer
from research.apps.retrieval.retriever import Retriever
from research.apps.retrieval.sqlite import SQLiteStore
from research.apps.retrieval.store import Entry, Hit
from research.evaluation.ranking import per_query
from tests.apps.retrieval.hashed import Hashed

CHUNK = Chunk("text", "a", 0, 4)


def store(path, embedder="hashed", width=32):
    return SQLiteStore(path / "store", embedder=embedder, width=width)


def lance(path, embedder="hashed", width=32):
    pytest.importorskip("lancedb", reason="the extra lancedb is not installed")
    return LanceStore(str(path / "lance"), embedder=embedder, width=width)


def read(path, name, content):
    (path / name).write_bytes(content)
    return [unread.read() for unread in folder(path / name)]


def upsert(path, vectors, chunks=(CHUNK,)):
    store(path).upsert([Entry("a", "", chunks, vectors)])


def another_database(path):
    with sqlite3.connect(path / "store") as db:
        db.execute("CREATE TABLE songs (name)")
    db.close()
    store(path)


def no_database(path):
    (path / "store").write_bytes(b"no database at all, and long enough" * 100)
    store(path)


def damaged_pages(path):
    made = store(path)
    made.upsert([Entry("a", "", [Chunk("text " * 2000, "a", i, i + 1) for i in range(20)], np.ones((20, 32)))])
    made.close()
    content = bytearray((path / "store").read_bytes())
    content[8192:] = b"\x55" * (len(content) - 8192)
    (path / "store").write_bytes(bytes(content))
    store(path).get()


def half_a_store(path):
    made = store(path)
    made.upsert([Entry("a", "", [CHUNK], np.ones((1, 32)))])
    made._db.execute("UPDATE chunks SET vector = x'00'")
    made.search(np.ones(32), 1)


def damaged_lance(path):
    lance(path)
    for file in (path / "lance").rglob("_versions/*"):
        file.write_bytes(b"garbage")
    lance(path)


def reopen(path, kind, **given):
    kind(path)
    kind(path, **given)


def encrypted(path):
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(path / "a.pdf")
    return read(path, "a.pdf", (path / "a.pdf").read_bytes())


def scanned(path):
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.write(path / "a.pdf")
    return read(path, "a.pdf", (path / "a.pdf").read_bytes())


def empty_folder(path, *names):
    for name in names:
        (path / name).write_text("x")
    return list(folder(path))


class Narrow:
    name, window = "narrow", 40

    def count(self, prompt):
        return len(prompt.split())

    def write(self, prompts, options):
        return [Reply("", "stop", Usage(0, 0))]


CASES = {
    "unreadable PDF": (lambda p: read(p, "a.pdf", b"%PDF-1.7 and then nothing"), r"a\.pdf: unreadable PDF: "),
    "cut PDF": (lambda p: read(p, "a.pdf", b""), r"a\.pdf: unreadable PDF: "),
    "encrypted PDF": (encrypted, r"a\.pdf: unreadable PDF: "),
    "scanned PDF": (scanned, "no text on the 1 pages of the PDF; are they scanned"),
    "binary file": (lambda p: read(p, "a.txt", b"\x89PNG\xff"), r"a\.txt: binary, or no utf-8 text: "),
    "zero bytes": (lambda p: read(p, "a.md", b"text\0text"), r"a\.md: binary: it has zero bytes"),
    "HTML in no charset": (
        lambda p: read(p, "a.html", b"<meta charset=klingon>"),
        "no klingon text: unknown encoding: klingon",
    ),
    "file without text": (lambda p: read(p, "a.html", b"<p> </p>"), r"a\.html: there is no text in it"),
    "JSONL that is none": (
        lambda p: read(p, "a.jsonl", b'{"text": "x"}\n\n{"text": '),
        r"a\.jsonl, line 3: no JSON: Expecting value",
    ),
    "JSONL without a text": (
        lambda p: read(p, "a.jsonl", b'{"body": "x"}'),
        r"a\.jsonl, line 1: expected an object with a 'text', has \['body'\]",
    ),
    "JSONL with a list": (lambda p: read(p, "a.jsonl", b"[1]"), "expected an object with a 'text', has list"),
    "JSONL with NaN": (lambda p: read(p, "a.jsonl", b'{"text": "x", "y": NaN}'), "line 1: no JSON: Out of range"),
    "JSONL with half a character": (
        lambda p: read(p, "a.jsonl", b'{"text": "\\ud800"}'),
        "line 1: no JSON: .* can't encode character",
    ),
    "binary JSONL": (lambda p: read(p, "a.jsonl", b"\xff\xfe"), r"a\.jsonl, line 1: binary"),
    "empty folder": (lambda p: empty_folder(p), r"no documents below .*: 0 files of kinds \[\], can read \['\.htm'"),
    "folder of other things": (lambda p: empty_folder(p, "a.png", "b.zip"), r"2 files of kinds \['\.png', '\.zip'\]"),
    "no folder": (lambda p: list(folder(p / "nowhere")), "no file or folder at "),
    "file of another kind": (lambda p: read(p, "a.png", b""), r"a\.png: cannot read \.png; can read \["),
    "unknown way to chunk": (lambda p: Chunker("heading"), "'heading', did you mean 'headings'"),
    "overlap of a whole chunk": (lambda p: Chunker(size=5, overlap=5), "given overlap 5 and size 5"),
    "character over a chunk": (
        lambda p: Chunker(size=2, overlap=0, count=lambda t: len(t.encode()))(Document("a", "漢")),
        "the character '漢' alone has more tokens than a chunk may have",
    ),
    "unknown treatment of files": (
        lambda p: ingest([], store(p), Hashed(), Chunker(), unreadable="skipp"),
        r"unknown unreadable='skipp'; have \['error', 'skip'\]",
    ),
    "embedder of another width": (
        lambda p: ingest([], store(p), Hashed(16), Chunker()),
        "the store holds vectors of 'hashed', width 32; given 'hashed', width 16",
    ),
    "another embedder, reopened": (lambda p: reopen(p, store, embedder="x"), "'hashed', width 32; given 'x', width 32"),
    "another width, reopened": (lambda p: reopen(p, store, width=16), "'hashed', width 32; given 'hashed', width 16"),
    "another embedder, LanceDB": (lambda p: reopen(p, lance, embedder="x"), "'hashed', width 32; given 'x', width 32"),
    "another width, LanceDB": (lambda p: reopen(p, lance, width=16), "'hashed', width 32; given 'hashed', width 16"),
    "vectors of another width": (
        lambda p: upsert(p, np.ones((1, 31))),
        r"a: the store holds vectors of width 32 and expected \(1, 32\), given \(1, 31\)",
    ),
    "fewer vectors than chunks": (lambda p: upsert(p, np.ones((0, 32))), r"expected \(1, 32\), given \(0, 32\)"),
    "vectors of NaN": (lambda p: upsert(p, np.full((1, 32), np.nan)), "a: embeddings have values that are no finite"),
    "no chunks": (lambda p: upsert(p, np.ones((0, 32)), ()), "a: a document needs at least one chunk"),
    "chunks of another document": (
        lambda p: upsert(p, np.ones((1, 32)), [Chunk("text", "b", 0, 4)]),
        "a: given chunks of 'b'",
    ),
    "one chunk twice": (lambda p: upsert(p, np.ones((2, 32)), [CHUNK, CHUNK]), "a: two chunks have the same offsets"),
    "one document twice": (
        lambda p: store(p).upsert([Entry("a", "", [CHUNK], np.ones((1, 32)))] * 2),
        "a document was given twice in one call",
    ),
    "query of another width": (lambda p: store(p).search(np.ones(31), 1), r"width 32, the query has shape \(31,\)"),
    "no results wanted": (lambda p: store(p).search(np.ones(32), 0), "k must be at least 1, given 0"),
    "store in no folder": (lambda p: store(p / "nowhere"), "no folder .*nowhere for a store"),
    "store that is another database": (another_database, "is a database of something else, no store"),
    "store that is no database": (no_database, "store is no store, or corrupted: file is not a database"),
    "store with damaged pages": (damaged_pages, "store is no store, or corrupted: "),
    "store with cut vectors": (half_a_store, "is corrupted: it has vectors of another width than 32"),
    "damaged LanceDB": (damaged_lance, "is no store, corrupted, or cannot do this: "),
    "filter on no field": (lambda p: store(p).get({"a b": 1}), "filter: 'a b' is no name of a field"),
    "unknown bound": (lambda p: store(p).get({"year": {"=>": 1}}), r"filter on 'year': unknown bounds \['=>'\]"),
    "filter by nothing": (lambda p: store(p).get({"year": None}), "expected a text, a number or a truth value"),
    "filter by an empty list": (lambda p: store(p).get({"year": []}), "expected texts or numbers in the list"),
    "unknown retrieval": (lambda p: Retriever(store(p), Hashed(), "hybird"), "'hybird', did you mean 'hybrid'"),
    "dense without an embedder": (lambda p: Retriever(store(p), None), "'hybrid' retrieval needs an embedder"),
    "retrieval by another embedder": (lambda p: Retriever(store(p), Hashed(16)), "width 32; given 'hashed', width 16"),
    "BM25 of no texts": (lambda p: BM25([]), "BM25 needs texts, .* given 0 texts"),
    "BM25 with b of 2": (lambda p: BM25(["a"], b=2), "0 <= b <= 1; .* b=2"),
    "prompt over the window": (
        lambda p: answer("What?", lambda *a: [Hit(CHUNK, 1.0)], Narrow(), Options(max_new_tokens=8)),
        "narrow has a window of 40 tokens: the question with its best passage takes .* and the answer 8",
    ),
    "unknown measure": (lambda p: per_query({}, {"q": {}}, ["ndgc@10"]), "'ndgc@10', did you mean 'ndcg@10'"),
    "measure at no rank": (lambda p: per_query({}, {"q": {}}, ["p@0"]), "unknown measure 'p@0'"),
    "no judgements": (lambda p: per_query({}, {}), "no judgements"),
    "query without a ranking": (
        lambda p: per_query({"q": {}}, {"q": {"a": 1}, "r": {"a": 1}}),
        "1 of 2 judged queries have no ranking, 'r' first",
    ),
}


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "-"))
def test_refusals(name, tmp_path):
    call, message = CASES[name]
    with pytest.raises(ValueError, match=message) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)
