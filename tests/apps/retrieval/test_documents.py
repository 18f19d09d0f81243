"""Folders as documents: what is read, where headings begin, what is passed over."""

import json
import warnings
from pathlib import Path

import matplotlib
import pytest

from research.apps.retrieval import headings, python_docs
from research.apps.retrieval.files import folder
from research.apps.retrieval.html import Page

MARKDOWN = """# Cooking *rice*

Wash it.

```
# no heading
```

## Time ##
Twenty minutes.

Salt
----
A spoon.
"""

PAGE = """<!doctype html><html><head><title>Rice &amp; beans</title><style>p { color: red }</style>
<body><h1>Rice
 <i>and</i> beans</h1><p>Wash   the <b>rice</b>.<p>Then<br>wait.
<script>alert("<h2>no</h2>")</script>
<svg><title>A drawing</title></svg>
<pre>a
  b</pre><ul><li>one<li>two</ul><h2>Salt</h2>A&nbsp;spoon.</body></html>"""


def read(path):
    return {unread.source: unread.read() for unread in folder(path)}


def test_markdown_headings():
    found = headings.markdown(MARKDOWN)
    assert [(h.level, h.text) for h in found] == [(1, "Cooking *rice*"), (2, "Time"), (2, "Salt")]
    assert [MARKDOWN[h.start :].splitlines()[0] for h in found] == ["# Cooking *rice*", "## Time ##", "Salt"]


def test_underlined_headings_take_their_level_from_the_order_of_marks():
    text = "Title\n*****\n\ntext\n====\n\nPart\n----\n\n| a | b |\n\nNext\n****\n~~~ no\n"
    assert [(h.level, h.text) for h in headings.underlined(text)] == [
        (1, "Title"),
        (2, "text"),
        (3, "Part"),
        (1, "Next"),
    ]


def test_html_is_what_a_reader_sees():
    page = Page(PAGE)
    assert page.title == "Rice & beans"
    assert page.text == ("Rice and beans\n\nWash the rice.\n\nThen\nwait.\n\na\n  b\n\none\ntwo\n\nSalt\n\nA spoon.")
    assert [(h.level, h.text) for h in page.headings] == [(1, "Rice and beans"), (2, "Salt")]
    assert all(page.text[h.start :].startswith(h.text) for h in page.headings)


def test_html_without_a_body_or_with_an_open_head():
    assert Page("plain words").text == "plain words"
    assert Page("<head><title>t</title><body>words").text == "words"
    assert Page("").text == ""


def test_a_folder_of_every_kind(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "note.txt").write_text("hidden")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "deep" / "a.txt").write_bytes("one\r\ntwo é".encode("utf-8-sig"))
    (tmp_path / "b.md").write_text(MARKDOWN)
    (tmp_path / "c.html").write_bytes('<meta charset="latin-1"><title>Caf\xe9</title>ol\xe9'.encode("latin-1"))
    (tmp_path / "d.rst").write_text("Part\n====\n\nwords\n")
    rows = [{"_id": "x", "text": "first", "title": "T", "year": 1958, "authors": ["a"]}, {"text": "second"}]
    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    found = read(tmp_path)
    assert sorted(found) == ["b.md", "c.html", "d.rst", "deep/a.txt", "e.jsonl:2", "e.jsonl:x"]
    assert found["deep/a.txt"].text == "one\ntwo é"
    assert (found["b.md"].title, found["d.rst"].title) == ("Cooking *rice*", "Part")
    assert (found["c.html"].title, found["c.html"].text) == ("Café", "olé")
    assert (found["e.jsonl:x"].title, found["e.jsonl:x"].metadata) == ("T", {"year": 1958})
    assert read(tmp_path / "e.jsonl")["e.jsonl:2"].text == "second"


def test_hashes_follow_the_content(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("one")
    before = {unread.source: unread.digest for unread in folder(tmp_path)}
    (tmp_path / "b.txt").write_text("two")
    after = {unread.source: unread.digest for unread in folder(tmp_path)}
    assert before["a.txt"] == before["b.txt"] == after["a.txt"] != after["b.txt"]


def test_pdf_pages(tmp_path):
    pytest.importorskip("pypdf", reason="reading PDF needs the extra rag")
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), matplotlib.rc_context({"pdf.fonttype": 42}):
        warnings.simplefilter("ignore", DeprecationWarning)
        with PdfPages(tmp_path / "a.pdf", metadata={"Title": "Two pages"}) as pdf:
            for text in ("The wing lifts.", "The slipstream drags."):
                figure = Figure()
                figure.text(0.1, 0.5, text)
                pdf.savefig(figure)
    document = read(tmp_path)["a.pdf"]
    assert document.title == "Two pages"
    assert document.text == "The wing lifts.\n\nThe slipstream drags.\n"
    assert [(document.text[h.start :][:8], h.text) for h in document.headings] == [
        ("The wing", "page 1"),
        ("The slip", "page 2"),
    ]


def test_this_machine_s_python_documentation(monkeypatch):
    # Of the standard library one package, to read it quickly.
    monkeypatch.setattr(python_docs.python_docs, "library_files", lambda: [Path(json.__file__)])
    unread = {document.source: document for document in python_docs.documents()}
    topic, module = unread["topics:with"].read(), unread["docs:json"].read()
    assert (topic.title, topic.metadata) == ("with", {"kind": "topics"})
    assert topic.headings[0].text == 'The "with" statement'
    dumps = next(h for h in module.headings if h.text.startswith("json.dumps("))
    assert module.text[dumps.start :].startswith("json.dumps(obj, *, skipkeys=False")
