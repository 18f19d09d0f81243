"""An encyclopedia as ReAct's prompts know it: Search[title], Lookup[words] over any documents.

See *ReAct: Synergizing Reasoning and Acting in Language Models*, Yao et al., https://arxiv.org/abs/2210.03629.
"""

import difflib
import re
from collections.abc import Mapping

from .tools import Tools, tool

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
SHOWN = 5  # sentences of a page, and titles that are similar


class Wiki:
    """Pages by title, one of them open; each run needs its own, since it remembers where it is.

    Raises:
      ValueError: no pages.
    """

    def __init__(self, pages: Mapping[str, str]):
        if not pages:
            raise ValueError("an encyclopedia needs at least one page")
        self._pages = dict(pages)
        self._folded = {title.lower(): title for title in pages}
        self._open: list[str] | None = None
        self._words, self._place = "", 0

    def search(self, entity: str) -> str:
        """Opens the page of this title and shows its first sentences, or names similar titles.

        Args:
          entity: the title of a page
        """
        title = self._folded.get(entity.strip().lower())
        if title is None:
            return f"Could not find [{entity}]. Similar: {self._similar(entity)}."
        self._open = [sentence.strip() for sentence in _SENTENCE.split(self._pages[title]) if sentence.strip()]
        self._words, self._place = "", 0
        return " ".join(self._open[:SHOWN])

    def lookup(self, string: str) -> str:
        """Shows the next sentence of the open page that holds some words.

        Args:
          string: the words
        """
        if self._open is None:
            return "No page is open: search first."
        if string != self._words:
            self._words, self._place = string, 0
        found = [sentence for sentence in self._open if string.lower() in sentence.lower()]
        if self._place >= len(found):
            return "No more results."
        self._place += 1
        return f"(Result {self._place} / {len(found)}) {found[self._place - 1]}"

    def tools(self) -> Tools:
        """`Search` and `Lookup`, as the published prompts call them."""
        return Tools([tool(self.search, "Search"), tool(self.lookup, "Lookup")])

    def _similar(self, entity: str) -> list[str]:
        """Titles that share words, the most first, then those that are written alike."""
        words = set(re.findall(r"\w+", entity.lower()))
        shared = {title: len(words & set(re.findall(r"\w+", title.lower()))) for title in self._pages}
        near = difflib.get_close_matches(entity.lower(), self._folded, n=SHOWN, cutoff=0.5)
        order = sorted((title for title in shared if shared[title]), key=lambda title: -shared[title])
        return list(dict.fromkeys([*order, *(self._folded[title] for title in near)]))[:SHOWN]
