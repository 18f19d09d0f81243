"""Documents cut into chunks: by tokens, by sentences or by headings, never longer than a number of tokens."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from research.core.names import meant

from .document import Chunk, Document, Heading

Span = tuple[int, int]
WAYS = ("tokens", "sentences", "headings")

_WORD = re.compile(r"\S+")
# A full stop with what closes after it, where something new begins; or the end of a paragraph.
_END = re.compile(
    r"(?<!\b[A-Z])(?<!\be\.g)(?<!\bi\.e)(?<!\bcf)(?<!\bvs)(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bNo)(?<!\bFig)"
    r"[.!?][\"')\]’”]*(?=\s+[\"'(\[‘“]?[A-Z0-9])|(?=\n[ \t]*\n)"
)


def count_words(text: str) -> int:
    """Words, where no tokenizer is at hand."""
    return len(text.split())


@dataclass(frozen=True)
class Chunker:
    """Document -> chunks of at most `size` tokens.

    Attributes:
      by: "tokens": as many words as fit. "sentences": whole sentences. "headings": the same, never across a heading.
        A sentence that is too long is cut between words, such a word between characters.
      overlap: at most so many tokens of a chunk are repeated in the next one.
      count: text -> tokens. tokenizer: its name; documents are chunked anew when it, or anything above, changes.
    """

    by: str = "headings"
    size: int = 256
    overlap: int = 32
    count: Callable[[str], int] = count_words
    tokenizer: str = "words"

    def __post_init__(self) -> None:
        if self.by not in WAYS:
            raise ValueError(f"unknown way to chunk {self.by!r}{meant(self.by, WAYS)}; have {list(WAYS)}")
        if not 0 <= self.overlap < self.size:
            raise ValueError(f"0 <= overlap < size is needed, given overlap {self.overlap} and size {self.size}")

    @property
    def name(self) -> str:
        """All that decides where it cuts."""
        return f"{self.by} {self.size} {self.overlap} {self.tokenizer}"

    def __call__(self, document: Document) -> list[Chunk]:
        """Chunks in their order; whitespace around them belongs to none."""
        text = document.text
        cuts = [0, *(h.start for h in document.headings if self.by == "headings" and h.start), len(text)]
        pieces = _words if self.by == "tokens" else _sentences
        return [
            Chunk(
                text[start:end],
                document.source,
                start,
                end,
                document.title,
                _above(document.headings, start),
                document.metadata,
            )
            for section in zip(cuts, cuts[1:], strict=False)
            for start, end in self._packed(text, pieces(text, section))
        ]

    def _packed(self, text: str, pieces: list[Span]) -> Iterator[Span]:
        """Neighbouring pieces joined as long as they fit."""
        first = 0
        while first < len(pieces):
            begin = pieces[first][0]
            ends = range(first, min(first + self.size, len(pieces)))
            stop = first + bisect_right(ends, self.size, key=lambda i: self.count(text[begin : pieces[i][1]]))
            if stop == first:
                pieces[first : first + 1] = _smaller(text, pieces[first])
                continue
            yield begin, pieces[stop - 1][1]
            if stop == len(pieces):
                return
            # What is repeated leaves room for the next piece, else a chunk would be the end of the one before it.
            starts = range(first + 1, stop)
            first += 1 + bisect_left(starts, True, key=lambda i: self._repeats(text, pieces, i, stop))

    def _repeats(self, text: str, pieces: list[Span], first: int, stop: int) -> bool:
        begin = pieces[first][0]
        return (
            self.count(text[begin : pieces[stop - 1][1]]) <= self.overlap
            and self.count(text[begin : pieces[stop][1]]) <= self.size
        )


def _words(text: str, section: Span) -> list[Span]:
    return [match.span() for match in _WORD.finditer(text, *section)]


def _sentences(text: str, section: Span) -> list[Span]:
    start, end = section
    found = []
    for stop in [*(match.end() for match in _END.finditer(text, start, end)), end]:
        if sentence := text[start:stop].strip():
            begin = text.index(sentence, start)
            found.append((begin, begin + len(sentence)))
        start = stop
    return found


def _smaller(text: str, piece: Span) -> list[Span]:
    """The words of a piece, or the halves of a word."""
    words = _words(text, piece)
    start, end = piece
    if len(words) > 1:
        return words
    if end - start == 1:
        raise ValueError(f"the character {text[start:end]!r} alone has more tokens than a chunk may have")
    middle = (start + end) // 2
    return [(start, middle), (middle, end)]


def _above(headings: tuple[Heading, ...], start: int) -> str:
    path: list[Heading] = []
    for heading in headings:
        if heading.start > start:
            break
        path = [*(outer for outer in path if outer.level < heading.level), heading]
    return " > ".join(heading.text for heading in path)
