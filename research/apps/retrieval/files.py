"""Folders of text, Markdown, reStructuredText, HTML, PDF and JSONL as documents.

A document is named by its path below the folder; a line of a JSONL file by path and `id` (or `_id`, or its number).
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from . import headings
from .document import Document, Heading
from .html import Page

_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?([\w-]+)", re.IGNORECASE)


class Unread(NamedTuple):
    """A document that is there: its name, the hash of its content, and what reads it (ValueError where that fails)."""

    source: str
    digest: str
    read: Callable[[], Document]


def folder(path: str | Path) -> Iterator[Unread]:
    """The documents below a folder, or of one file; hidden files and those of other kinds are passed over.

    Raises:
      ValueError: no such path, a file of another kind, or a folder without documents.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix.lower() not in KINDS:
            raise ValueError(f"{path}: cannot read {path.suffix or 'files without a suffix'}; can read {sorted(KINDS)}")
        yield from _documents(path, path.name)
        return
    if not path.is_dir():
        raise ValueError(f"no file or folder at {path}")
    below = [(file, file.relative_to(path)) for file in sorted(path.rglob("*"))]
    files = [(f, name) for f, name in below if f.is_file() and not any(part[0] == "." for part in name.parts)]
    readable = [(f, name) for f, name in files if f.suffix.lower() in KINDS]
    if not readable:
        kinds = sorted({file.suffix for file, _ in files})
        raise ValueError(f"no documents below {path}: {len(files)} files of kinds {kinds}, can read {sorted(KINDS)}")
    for file, name in readable:
        yield from _documents(file, name.as_posix())


def digest(content: bytes) -> str:
    """sha256."""
    return hashlib.sha256(content).hexdigest()


def _documents(path: Path, source: str) -> Iterator[Unread]:
    try:
        content = path.read_bytes()
    except OSError as error:
        yield Unread(source, "", partial(_fail, f"{path}: {error.strerror}"))
        return
    if path.suffix.lower() == ".jsonl":
        for number, line in enumerate(content.split(b"\n"), start=1):
            if line.strip():
                yield _line(line, f"{path}, line {number}", source, number)
    else:
        yield Unread(source, digest(content), partial(_file, path, source))


def _file(path: Path, source: str) -> Document:
    text, title, found = KINDS[path.suffix.lower()](path.read_bytes(), str(path))
    if not text.strip():
        raise ValueError(f"{path}: there is no text in it")
    return Document(source, text, title, found)


def _line(line: bytes, where: str, source: str, number: int) -> Unread:
    try:
        row = json.loads(_decoded(line, where))
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode()  # half a character, or no number
    except ValueError as error:
        problem = str(error) if str(error).startswith(where) else f"{where}: no JSON: {error}"
        return Unread(f"{source}:{number}", "", partial(_fail, problem))
    if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"].strip():
        have = sorted(row) if isinstance(row, dict) else type(row).__name__
        return Unread(
            f"{source}:{number}", "", partial(_fail, f"{where}: expected an object with a 'text', has {have}")
        )
    name = f"{source}:{row.pop('_id', row.pop('id', number))}"
    return Unread(name, digest(line), partial(_row, name, row))


def _row(name: str, row: dict[str, Any]) -> Document:
    """Values that are texts, numbers or truth values become metadata; others cannot be asked for and are left out."""
    rest = {k: v for k, v in row.items() if k not in ("text", "title") and isinstance(v, str | int | float)}
    return Document(name, row["text"], str(row.get("title") or ""), metadata=rest)


def _fail(problem: str) -> Document:
    raise ValueError(problem)


Read = tuple[str, str, tuple[Heading, ...]]


def _plain(content: bytes, where: str) -> Read:
    return _decoded(content, where), "", ()


def _restructured(content: bytes, where: str) -> Read:
    text = _decoded(content, where)
    return _titled(text, headings.underlined(text))


def _markdown(content: bytes, where: str) -> Read:
    text = _decoded(content, where)
    return _titled(text, headings.markdown(text))


def _titled(text: str, found: tuple[Heading, ...]) -> Read:
    return text, next((heading.text for heading in found if heading.level == 1), ""), found


def _html(content: bytes, where: str) -> Read:
    charset = _CHARSET.search(content[:2048])
    page = Page(_decoded(content, where, charset[1].decode() if charset else "utf-8"))
    return page.text, page.title, page.headings


def _pdf(content: bytes, where: str) -> Read:
    try:
        import pypdf
        from pypdf.errors import PyPdfError
    except ImportError:
        raise ValueError(f"{where}: reading PDF needs pypdf: pip install lifecycle[rag]") from None
    text, found = "", []
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        title = str((reader.metadata and reader.metadata.title) or "")
        for number, page in enumerate(reader.pages, start=1):
            found.append(Heading(len(text), 1, f"page {number}"))
            text += page.extract_text().strip() + "\n\n"
    except (PyPdfError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        # pypdf gives whatever its parser stumbles over; all of it means that the file is damaged.
        raise ValueError(f"{where}: unreadable PDF: {' '.join(str(error).split()) or type(error).__name__}") from None
    if not text.strip():
        raise ValueError(f"{where}: no text on the {len(found)} pages of the PDF; are they scanned?")
    return text.rstrip() + "\n", title, tuple(found)


def _decoded(content: bytes, where: str, charset: str = "utf-8") -> str:
    """Text with "\\n" line ends; refuses what is none."""
    try:
        text = content.decode("utf-8-sig" if charset.lower() in ("utf-8", "utf8") else charset)
    except (UnicodeDecodeError, LookupError) as error:
        raise ValueError(f"{where}: binary, or no {charset} text: {error}") from None
    if "\0" in text:
        raise ValueError(f"{where}: binary: it has zero bytes")
    return text.replace("\r\n", "\n")


KINDS: dict[str, Callable[[bytes, str], Read]] = {
    ".txt": _plain,
    ".md": _markdown,
    ".markdown": _markdown,
    ".rst": _restructured,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".jsonl": _plain,  # one document a line
}
