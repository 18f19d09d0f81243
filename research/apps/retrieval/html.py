"""HTML as text: what a reader sees, with its title and headings."""

import re
from html.parser import HTMLParser

from .document import Heading

_HIDDEN = {"script", "style", "template", "noscript", "svg", "head"}
_LINES = {"br", "dd", "dt", "li", "tr"}
_BLOCKS = {"address", "article", "aside", "blockquote", "details", "div", "dl", "fieldset", "figcaption", "figure"}
_BLOCKS |= {"footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "main", "nav", "ol", "p", "pre"}
_BLOCKS |= {"section", "table", "ul"}
_HEADING = re.compile("h([1-6])")


class Page(HTMLParser):
    """Reads a page: `text`, `title` and `headings`, whose offsets are into `text`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._parts: list[str] = []
        self._length, self._gap = 0, ""  # of the parts; what stands between them and the next one
        self._hidden: list[str] = []
        self._preformatted, self._in_title = 0, False
        self._opened: tuple[int, int] | None = None  # a heading's level and first part
        self._start = 0
        self._title: list[str] = []
        self._headings: list[Heading] = []
        self.feed(page)
        self.close()
        self.text, self.headings = "".join(self._parts), tuple(self._headings)
        self.title = " ".join("".join(self._title).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens a block, a heading, or what is not shown."""
        if tag == "title":
            self._in_title = not self._title  # drawings have titles too
        elif tag in _HIDDEN:
            self._hidden.append(tag)
        elif tag == "body":  # after a head that was never closed
            self._hidden.clear()
        self._break(tag)
        self._preformatted += tag == "pre"
        if level := _HEADING.fullmatch(tag):
            self._opened = int(level[1]), len(self._parts)

    def handle_endtag(self, tag: str) -> None:
        """Closes it."""
        if tag == "title":
            self._in_title = False
        elif tag in self._hidden:
            del self._hidden[self._hidden.index(tag) :]
        elif tag == "pre" and self._preformatted:
            self._preformatted -= 1
        elif _HEADING.fullmatch(tag) and self._opened:
            level, first = self._opened
            if words := "".join(self._parts[first:]).split():
                self._headings.append(Heading(self._start, level, " ".join(words)))
            self._opened = None
        self._break(tag)

    def handle_data(self, data: str) -> None:
        """Adds text, the blanks between its words made one unless it is preformatted."""
        if self._in_title:
            self._title.append(data)
        elif not self._hidden and self._preformatted:
            self._add(data)
        elif not self._hidden:
            if data[:1].isspace():
                self._gap = self._gap or " "
            if words := " ".join(data.split()):
                self._add(words)
                self._gap = " " if data[-1].isspace() else ""

    def _add(self, text: str) -> None:
        gap = self._gap if self._parts else ""
        if self._opened and self._opened[1] == len(self._parts):
            self._start = self._length + len(gap)
        self._parts.append(gap + text)
        self._length += len(gap + text)
        self._gap = ""

    def _break(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._gap = "\n\n"
        elif tag in _LINES and self._gap != "\n\n":
            self._gap = "\n"
