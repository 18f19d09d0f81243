"""Headings of plain formats: "# marked" as in Markdown, and underlined as in Markdown and reStructuredText."""

import re

from .document import Heading

_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_MARKED = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r"([=\-~^\"'*+#`:.])\1{2,}[ \t]*$")


def markdown(text: str) -> tuple[Heading, ...]:
    """Headings outside of fenced code; of the underlined ones, === is level 1 and --- level 2."""
    return _headings(text, marked=True)


def underlined(text: str) -> tuple[Heading, ...]:
    """Headings with a line of one punctuation mark below them; the first mark that is used is level 1, and so on."""
    return _headings(text, marked=False)


def _headings(text: str, *, marked: bool) -> tuple[Heading, ...]:
    found = []
    levels = {"=": 1, "-": 2} if marked else {}
    start, before, previous, fence = 0, "", "", ""
    for line in text.splitlines(keepends=True):
        bare = line.rstrip("\r\n")
        if marked and (mark := _FENCE.match(bare)) and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        elif not fence:
            if marked and (mark := _MARKED.match(bare)):
                found.append(Heading(start, len(mark[1]), mark[2]))
                bare = ""
            elif _is_underline(bare, before, marked):
                level = levels.setdefault(bare[0], len(levels) + 1)
                found.append(Heading(start - len(previous), level, before.strip()))
        before, previous = bare, line
        start += len(line)
    return tuple(found)


def _is_underline(line: str, above: str, marked: bool) -> bool:
    mark = _UNDERLINE.match(line)
    if not mark or not above.strip() or _UNDERLINE.match(above):
        return False
    return mark[1] in "=-" if marked else len(line.rstrip()) >= len(above.strip())
