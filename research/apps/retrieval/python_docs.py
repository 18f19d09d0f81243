"""The documentation that this machine's Python carries, as documents: language reference and docstrings."""

import re
from collections.abc import Iterator
from functools import partial

from research.data import python_docs

from . import headings
from .document import Document, Heading
from .files import Unread, digest


def documents() -> Iterator[Unread]:
    """One document per topic of `help()` and per public module of the standard library."""
    for name, text in python_docs.corpus():
        yield Unread(name, digest(text.encode("utf-8", "surrogatepass")), partial(_document, name, text))


def _document(name: str, text: str) -> Document:
    kind, _, title = name.partition(":")
    if kind == "topics":
        return Document(name, text, title, headings.underlined(text), {"kind": kind})
    described = re.finditer(rf"^(?:class )?{re.escape(title)}\.\S.*$(?=\n    )", text, re.MULTILINE)
    return Document(name, text, title, tuple(Heading(m.start(), 1, m[0]) for m in described), {"kind": kind})
