"""What is retrieved: documents, and the chunks they are cut into."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Scalar = str | int | float | bool


class Heading(NamedTuple):
    """A heading at a character offset of a document; level 1 is the outermost."""

    start: int
    level: int
    text: str


@dataclass(frozen=True)
class Document:
    """A text and where it is from.

    Attributes:
      source: its name in a store, such as a path. text: what was extracted from it. headings: in their order.
      metadata: whatever else filters may ask for.
    """

    source: str
    text: str
    title: str = ""
    headings: tuple[Heading, ...] = ()
    metadata: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Chunk:
    """A part of a document: `document.text[start:end] == text`.

    Attributes:
      heading: the headings above its first character, outermost first, joined by " > ".
    """

    text: str
    source: str
    start: int
    end: int
    title: str = ""
    heading: str = ""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its name in a store."""
        return f"{self.source}@{self.start}-{self.end}"

    @property
    def passage(self) -> str:
        """Title, heading and text, one below the other: what is embedded, and what text search reads."""
        return "\n".join(part for part in (self.title, self.heading, self.text) if part)
