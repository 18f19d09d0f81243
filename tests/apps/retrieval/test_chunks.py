"""Chunks: never too long, nothing lost, offsets that hold; against a plain loop of words."""

import numpy as np
import pytest

from research.apps.retrieval.chunks import WAYS, Chunker
from research.apps.retrieval.document import Document, Heading

TEXT = (
    'Dr. Smith came at 3.5 p.m. from e.g. London. He left! "Why?" she asked.\n\nA new paragraph without an end\n\n'
    "Then more. (It ends.)"
)


def random_document(seed):
    rng = np.random.default_rng(seed)
    letters = [*"abcdefg éß漢", "\n", "\n\n", ". ", "! A", "  "]
    text = "".join(rng.choice(letters, size=rng.integers(1, 900)))
    starts = sorted(set(rng.integers(0, len(text), 4).tolist()))
    return Document("s", text, "t", tuple(Heading(s, int(rng.integers(1, 4)), f"h{s}") for s in starts), {"n": seed})


def count_bytes(text):
    return len(text.encode())


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("seed", range(12))
def test_chunks_fit_and_lose_nothing(by, seed):
    document = random_document(seed)
    chunker = Chunker(by, size=40, overlap=seed % 3 * 10, count=count_bytes, tokenizer="bytes")
    covered = np.array([c.isspace() for c in document.text], bool)
    last = (-1, -1)
    for chunk in chunker(document):
        assert document.text[chunk.start : chunk.end] == chunk.text == chunk.text.strip() != ""
        assert count_bytes(chunk.text) <= 40
        assert last[0] < chunk.start and last[1] < chunk.end  # each begins and ends later than the one before
        if seed % 3 == 0:
            assert chunk.start >= last[1]
        elif chunk.start < last[1]:
            assert count_bytes(document.text[chunk.start : last[1]]) <= seed % 3 * 10
        last = chunk.start, chunk.end
        covered[chunk.start : chunk.end] = True
        assert (chunk.source, chunk.title, chunk.metadata) == ("s", "t", {"n": seed})
    assert covered.all()


@pytest.mark.parametrize(("size", "overlap"), [(5, 0), (5, 2), (7, 6), (100, 3)])
def test_words_are_the_windows_of_a_plain_loop(size, overlap):
    words = [f"w{i}" for i in range(23)]
    expected, start = [], 0
    while True:
        expected.append(" ".join(words[start : start + size]))
        if start + size >= len(words):
            break
        start += size - overlap
    assert [c.text for c in Chunker("tokens", size, overlap)(Document("s", " ".join(words)))] == expected


def test_sentences_end_where_people_end_them():
    chunker = Chunker("sentences", size=9, overlap=0)
    assert [c.text for c in chunker(Document("s", TEXT))] == [
        "Dr. Smith came at 3.5 p.m. from e.g. London.",
        'He left! "Why?" she asked.',
        "A new paragraph without an end\n\nThen more.",
        "(It ends.)",
    ]


def test_no_chunk_crosses_a_heading_and_each_knows_those_above():
    text = "intro\n# A\none two\n## B\nthree\n# C\nfour"
    marks = tuple(Heading(text.index(f"# {h}") - (h == "B"), 2 if h == "B" else 1, h) for h in "ABC")
    chunks = Chunker("headings", size=50, overlap=5)(Document("s", text, headings=marks))
    assert [(c.heading, c.text) for c in chunks] == [
        ("", "intro"),
        ("A", "# A\none two"),
        ("A > B", "## B\nthree"),
        ("C", "# C\nfour"),
    ]


def test_another_way_of_chunking_has_another_name():
    names = {Chunker(by, size, overlap).name for by in WAYS for size in (8, 9) for overlap in (0, 1)}
    assert len(names) == 12


def test_nothing_gives_no_chunk():
    assert Chunker()(Document("s", " \n ")) == []
