"""Completions put before people: blind, in an order of their own for each labeller, remembered rank by rank.

A folder holds `samples.jsonl` (`id`, `prompt`, `completions` on each line), perhaps `guidelines.md`, and in `rankings/`
one form for each labeller as `research.data.rankings` reads it, so that what people said is training data as it is.
"""

import json
import os
import random
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from research.core.names import meant
from research.data.files import read_jsonl
from research.data.rankings import (
    Ranking,
    Sample,
    Votes,
    conflicting,
    preferences_of,
    ranking_of,
    read_rankings,
    votes_of,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


class Board:
    """The samples of a folder and what was said of them; safe from many threads.

    Raises:
      ValueError: no sample, two of one id, or one that cannot be ranked; names the file.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        path = self.folder / "samples.jsonl"
        try:
            rows = [Sample(str(r["id"]), r["prompt"], tuple(r["completions"])).checked() for r in read_jsonl(path)]
        except KeyError as error:
            raise ValueError(f"{path}: every line needs id, prompt and completions; {error} is missing") from None
        self.samples = {one.id: one for one in rows}
        if not rows or len(self.samples) < len(rows):
            raise ValueError(f"{path}: {len(rows)} samples of which {len(self.samples)} have an id of their own")
        guidelines = self.folder / "guidelines.md"
        self.guidelines = guidelines.read_text(encoding="utf-8") if guidelines.is_file() else ""
        self._lock = threading.Lock()

    def labellers(self) -> list[str]:
        """Who has ranked anything."""
        return sorted(path.stem for path in (self.folder / "rankings").glob("*.jsonl"))

    def next(self, labeller: str) -> dict[str, Any]:
        """The first sample that the labeller has not ranked, its completions in that labeller's order, and how far.

        `sample` is None where all are done.
        """
        done = {row["id"] for row in self._form(labeller)}
        left = [one for one in self.samples.values() if one.id not in done]
        told: dict[str, Any] = {"done": len(done), "of": len(self.samples), "sample": None}
        if left:
            one = left[0]
            shown = [one.completions[i] for i in self._order(labeller, one)]
            told["sample"] = {"id": one.id, "prompt": one.prompt, "completions": shown}
        return told

    def rank(self, labeller: str, name: str, ranks: Sequence[float | None]) -> None:
        """Remembers ranks of the completions as they were shown: 1 is the best, equal ones a tie, None left out.

        Raises:
          ValueError: an unknown sample, one that is ranked already, or ranks that do not fit it.
        """
        if name not in self.samples:
            raise ValueError(f"no sample has the id {name!r}{meant(name, self.samples)}")
        one = self.samples[name]
        if len(ranks) != len(one.completions):
            raise ValueError(f"{len(ranks)} ranks for the {len(one.completions)} completions of sample {name!r}")
        own: list[float | None] = [None] * len(ranks)
        for place, rank in zip(self._order(labeller, one), ranks, strict=True):
            own[place] = rank
        new = {"id": name, "labeller": labeller, "prompt": one.prompt, "completions": one.completions, "ranks": own}
        ranking_of(new, self.samples)
        with self._lock:
            rows = self._form(labeller)
            if any(row["id"] == name for row in rows):
                raise ValueError(f"{labeller!r} has ranked sample {name!r} already; undo it first")
            self._write(labeller, [*rows, new])

    def undo(self, labeller: str) -> str | None:
        """Forgets the labeller's last ranking and says of which sample it was; None where there is none."""
        with self._lock:
            rows = self._form(labeller)
            if not rows:
                return None
            self._write(labeller, rows[:-1])
            return rows[-1]["id"]

    def votes(self) -> Votes:
        """What everybody said of every two completions."""
        rankings = [ranking for name in self.labellers() for ranking in self._rankings(name)]
        return votes_of(list(self.samples.values()), rankings)

    def conflicts(self) -> list[dict[str, Any]]:
        """The pairs on which labellers disagree, with who says what."""
        votes = self.votes()
        return [
            {"id": name, "completions": [self.samples[name].completions[i] for i in (first, second)], "votes": said}
            for name, first, second, said in ((*pair, votes[pair]) for pair in conflicting(votes))
        ]

    def export(self, conflicts: str = "share") -> str:
        """All preferences as JSONL that `research.data.preference` reads; see `preferences_of` for `conflicts`."""
        pairs = preferences_of(list(self.samples.values()), self.votes(), conflicts=conflicts)
        return "".join(json.dumps(pair._asdict(), ensure_ascii=False) + "\n" for pair in pairs)

    def _order(self, labeller: str, one: Sample) -> list[int]:
        order = list(range(len(one.completions)))
        random.Random(f"{labeller}\n{one.id}").shuffle(order)
        return order

    def _path(self, labeller: str) -> Path:
        if not NAME.fullmatch(labeller):
            raise ValueError(f"a labeller's name is 1 to 64 letters, digits, spaces, dots, _ or -; given {labeller!r}")
        return self.folder / "rankings" / f"{labeller}.jsonl"

    def _form(self, labeller: str) -> list[dict[str, Any]]:
        path = self._path(labeller)
        return list(read_jsonl(path)) if path.is_file() and path.stat().st_size else []

    def _rankings(self, labeller: str) -> list[Ranking]:
        path = self._path(labeller)
        return read_rankings(path, list(self.samples.values())) if path.stat().st_size else []

    def _write(self, labeller: str, rows: Sequence[dict[str, Any]]) -> None:
        """Whole or not at all."""
        path = self._path(labeller)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        os.replace(fresh, path)
