"""Names of Python source: by hand, and on the standard library."""

import ast

import pytest

from research.data import python_docs
from research.data.byte_tokenizer import ByteTokenizer
from research.data.syntax_tags import KINDS, LABELS, piece_labels, spans

SOURCE = """import os.path as p, sys
from collections import abc
@decorated
async def run(self, *args: int, key="é", **rest):
    é = self.x.open(key, mode="r").read
    return print(len(é))


class  Thing(Base):
    pass
"""


def test_every_kind_by_hand():
    found = [(SOURCE[a:b], kind) for a, b, kind in spans(SOURCE)]
    assert found == [
        ("os.path", "module"), ("sys", "module"), ("collections", "module"), ("run", "function"),
        ("self", "parameter"), ("args", "parameter"), ("key", "parameter"), ("rest", "parameter"),
        ("x", "attribute"), ("open", "call"), ("mode", "keyword"), ("read", "attribute"),
        ("print", "call"), ("len", "call"), ("Thing", "class"),
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["", "\n\n", "x = 1\n", "# only a comment", "\x0cb = 1\r\n"])
def test_sources_without_a_name(source):
    assert spans(source) == []


def test_text_that_is_no_python_is_refused():
    with pytest.raises(ValueError, match=r"not Python: .*line 1"):
        spans("def (:\n")


def test_pieces_are_labelled_by_their_characters():
    found = spans("def f(xy):\n  return xy.zz")
    offsets = [(0, 3), (3, 5), (5, 6), (6, 7), (7, 8), (8, 8), (8, 19), (19, 22), (22, 24)]
    labels = [LABELS[i] for i in piece_labels(found, offsets)]
    assert labels == ["O", "B-function", "O", "B-parameter", "I-parameter", "O", "O", "O", "B-attribute"]
    assert piece_labels(found, []) == [] and set(piece_labels([], offsets)) == {0}


def test_labels_of_single_characters_spell_the_spans_again():
    tokenizer = ByteTokenizer()
    sources = [d.text for d in list(python_docs.sources(tests=False))[:40]]
    seen = set()
    for source in sources:
        found = spans(source)
        labels = piece_labels(found, [(i, i + 1) for i in range(len(source))])
        assert sum(LABELS[i].startswith("B") for i in labels) == len(found)
        assert sum(i > 0 for i in labels) == sum(b - a for a, b, _ in found)
        for a, b, kind in found:
            assert all(part.isidentifier() for part in source[a:b].split(".")), (kind, source[a:b])
        seen |= {kind for *_, kind in found}
        ids, offsets = tokenizer.encode_with_offsets(source[:500])
        assert len(piece_labels(found, offsets)) == len(ids)
    assert seen == set(KINDS)


def test_as_many_functions_as_the_parser_finds():
    source = next(d.text for d in python_docs.sources(tests=False) if len(d.text) > 20_000)
    defined = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert sum(kind == "function" for *_, kind in spans(source)) == len(defined) > 0
