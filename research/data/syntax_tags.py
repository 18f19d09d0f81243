"""What the names in Python source stand for, read from its own syntax: a token classification task without a download.

    spans("def f(x):\n    return x.y")  ->  [(4, 5, "function"), (6, 7, "parameter"), (24, 25, "attribute")]

A model that sees the characters alone has to infer what the parser knows. Kinds: module, class, function, parameter,
call, keyword (the name of a keyword argument), attribute.
"""

import ast
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

KINDS = ("attribute", "call", "class", "function", "keyword", "module", "parameter")
LABELS = ("O", *(f"{begin}-{kind}" for kind in KINDS for begin in "BI"))

_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n|\Z)")
_DEFINED = re.compile(r"\s*(?:async\s+)?(?:def|class)\s+(\w+)")


class Span(NamedTuple):
    """Characters start .. end of the source, and what they name."""

    start: int
    end: int
    kind: str


class _Places:
    """From a parser's (line, byte column) to a position in the text."""

    def __init__(self, source: str):
        self._lines = _LINE.findall(source)  # as the parser breaks them, not str.splitlines
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode(errors="ignore"))


def spans(source: str) -> list[Span]:
    """The named places of a file in order, none inside another.

    Raises:
      ValueError: the text is no Python that this version can parse; says where.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old escapes in somebody else's strings
            parsed = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"not Python: {error}") from None
    places = _Places(source)
    found: set[Span] = set()
    called = {id(node.func) for node in ast.walk(parsed) if isinstance(node, ast.Call)}
    for node in ast.walk(parsed):
        found.update(_named(node, id(node) in called, source, places))
    kept: list[Span] = []
    for span in sorted(found):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return kept


def _named(node: ast.AST, called: bool, source: str, places: _Places) -> list[Span]:
    """What one node of the tree names."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        match = _DEFINED.match(source, places.at(node.lineno, node.col_offset))
        kind = "class" if isinstance(node, ast.ClassDef) else "function"
        return [Span(match.start(1), match.end(1), kind)] if match else []
    if isinstance(node, ast.arg):
        start = places.at(node.lineno, node.col_offset)
        return [Span(start, start + len(node.arg), "parameter")]
    if isinstance(node, ast.keyword) and node.arg:
        start = places.at(node.lineno, node.col_offset)
        return [Span(start, start + len(node.arg), "keyword")]
    if isinstance(node, ast.Attribute):
        end = places.at(node.end_lineno or node.lineno, node.end_col_offset or 0)
        return [Span(end - len(node.attr), end, "call" if called else "attribute")]
    if isinstance(node, ast.Name) and called:
        start = places.at(node.lineno, node.col_offset)
        return [Span(start, start + len(node.id), "call")]
    if isinstance(node, ast.Import):
        return [_module(alias, places) for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        start = places.at(node.lineno, node.col_offset)
        match = re.compile(rf"from\s+\.*\s*({re.escape(node.module)})\b").match(source, start)
        return [Span(match.start(1), match.end(1), "module")] if match else []
    return []


def _module(alias: ast.alias, places: _Places) -> Span:
    start = places.at(alias.lineno, alias.col_offset)
    return Span(start, start + len(alias.name), "module")


def piece_labels(named: Sequence[Span], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The label (an index of `LABELS`) of every piece, by the characters [start, end) that it stands for.

    A piece belongs to the first span that it shares a character with; the span's first piece is `B`, the others `I`.
    """
    labels, begun, at = [], -1, 0
    for start, end in offsets:
        while at < len(named) and named[at].end <= start:
            at += 1
        inside = at < len(named) and named[at].start < end and start < end
        if not inside:
            labels.append(0)
            continue
        labels.append(1 + 2 * KINDS.index(named[at].kind) + (begun == at))
        begun = at
    return labels
