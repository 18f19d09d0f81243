"""Rankings of several answers to one prompt, by one or more labellers: as a form that people fill in, and as pairs.

A form is a JSONL file with one line for each prompt: `id`, `labeller`, `prompt`, `completions` and `ranks`, a list with
one number for each completion, 1 for the best; equal numbers are a tie, null leaves a completion out. A line whose
ranks are all null is not done yet.

A verdict on two completions is "A" (the first is better), "B" or "tie".
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from research.core.names import meant

from .files import read_jsonl
from .preference import Preference, Prompt

CONFLICTS = ("share", "majority", "drop")

Pair = tuple[str, int, int]  # id of the prompt, two of its completions, the first before the second
Votes = dict[Pair, dict[str, str]]  # labeller -> verdict


class Sample(NamedTuple):
    """Completions of one prompt that are to be ranked."""

    id: str
    prompt: Prompt
    completions: tuple[str, ...]

    def checked(self) -> "Sample":
        """Itself.

        Raises:
          ValueError: an empty completion, one that is there twice, or fewer than two.
        """
        if empty := [i for i, text in enumerate(self.completions) if not text.strip()]:
            raise ValueError(f"prompt {self.id!r}: completion {empty[0]} is empty; leave it out of the ranking")
        different = len(set(self.completions))
        if different < 2 or different < len(self.completions):
            raise ValueError(
                f"prompt {self.id!r}: a ranking needs at least 2 completions, no two of them equal; "
                f"given {len(self.completions)}, of which {different} differ"
            )
        return self


class Ranking(NamedTuple):
    """One labeller's ranks of a sample's completions: 1 is the best, equal ranks are a tie, None was not ranked."""

    id: str
    labeller: str
    ranks: tuple[float | None, ...]


def ranks_of(scores: Sequence[float | None]) -> tuple[int | None, ...]:
    """1 + how many scores are higher; equal scores share a rank, None has none.

    Raises:
      ValueError: a score that is no number.
    """
    known = [score for score in scores if score is not None]
    if any(math.isnan(score) for score in known):
        raise ValueError(f"a score of NaN cannot be ranked: {list(scores)}")
    return tuple(None if score is None else 1 + sum(other > score for other in known) for score in scores)


def points_of(count: int, verdicts: Mapping[tuple[int, int], str | None]) -> tuple[float | None, ...]:
    """Wins and half the ties of each of `count` completions against the others, as a share of its decided pairs.

    Copeland's score, which ranks also where verdicts go in a circle. None for a completion without any verdict.
    """
    won, met = [0.0] * count, [0] * count
    for (i, j), verdict in verdicts.items():
        if verdict is not None:
            won[i] += {"A": 1.0, "tie": 0.5, "B": 0.0}[verdict]
            won[j] += {"A": 0.0, "tie": 0.5, "B": 1.0}[verdict]
            met[i], met[j] = met[i] + 1, met[j] + 1
    return tuple(w / n if n else None for w, n in zip(won, met, strict=True))


def add_form(path: str | Path, labeller: str, samples: Iterable[Sample]) -> int:
    """Appends to a form the prompts that it lacks, and says how many; what is filled in is never touched."""
    path = Path(path)
    there = path.read_text(encoding="utf-8") if path.is_file() else ""
    known = {row.get("id") for row in read_jsonl(path)} if there.strip() else set()
    lines = [
        json.dumps({**one._asdict(), "labeller": labeller, "ranks": [None] * len(one.completions)}, ensure_ascii=False)
        for one in samples
        if one.id not in known
    ]
    if lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(("" if there.endswith("\n") or not there else "\n") + "".join(f"{line}\n" for line in lines))
    return len(lines)


def read_rankings(path: str | Path, samples: Sequence[Sample]) -> list[Ranking]:
    """The rankings of a form that are done.

    Raises:
      ValueError: an id that no sample has, other completions than the sample's, ranks that do not fit them, fewer than
        two of them, or one labeller twice on a prompt; names file and line.
    """
    known, found = {one.id: one for one in samples}, {}
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            ranking = ranking_of(row, known)
            if ranking is not None and (at := (ranking.id, ranking.labeller)) in found:
                raise ValueError(f"labeller {at[1]!r} ranks prompt {at[0]!r} a second time")
        except ValueError as error:
            raise ValueError(f"{path}, row {number}: {error}") from None
        if ranking is not None:
            found[at] = ranking
    return list(found.values())


def ranking_of(row: Mapping[str, Any], known: Mapping[str, Sample]) -> Ranking | None:
    """The ranking on a line of a form; None where nothing is ranked yet. Raises ValueError as `read_rankings`."""
    if absent := {"id", "labeller", "ranks"} - set(row):
        raise ValueError(f"expected id, labeller and ranks; {sorted(absent)} missing in {sorted(row)}")
    name, ranks = row["id"], row["ranks"]
    if name not in known:
        raise ValueError(f"no prompt has the id {name!r}{meant(str(name), known)}; there are {len(known)}")
    sample = known[name]
    if tuple(row.get("completions", sample.completions)) != sample.completions:
        raise ValueError(f"the completions of prompt {name!r} are not those that were sampled")
    good = isinstance(ranks, list) and all(
        r is None or (isinstance(r, int | float) and not isinstance(r, bool) and math.isfinite(r)) for r in ranks
    )
    if not good or len(ranks) != len(sample.completions):
        raise ValueError(
            f"ranks of prompt {name!r} must be {len(sample.completions)} numbers or nulls, one for each completion; "
            f"got {ranks!r}"
        )
    ranked = sum(rank is not None for rank in ranks)
    if ranked == 1:
        raise ValueError(f"prompt {name!r} has one rank only: nothing to compare it with")
    return Ranking(name, str(row["labeller"]), tuple(ranks)) if ranked else None


def votes_of(samples: Sequence[Sample], rankings: Iterable[Ranking]) -> Votes:
    """Every labeller's verdict on every two completions that it ranked.

    Raises:
      ValueError: a sample that cannot be ranked; a ranking of an unknown prompt, with another number of ranks, or a
        labeller's second one of a prompt.
    """
    known = {one.id: one.checked() for one in samples}
    votes: Votes = {}
    for name, labeller, ranks in rankings:
        if name not in known:
            raise ValueError(f"{labeller!r} ranks the unknown prompt {name!r}{meant(name, known)}")
        if len(ranks) != len(known[name].completions):
            raise ValueError(
                f"{labeller!r} gives prompt {name!r} {len(ranks)} ranks for {len(known[name].completions)} completions"
            )
        done = [(i, rank) for i, rank in enumerate(ranks) if rank is not None]
        for (i, first), (j, second) in combinations(done, 2):
            said = votes.setdefault((name, i, j), {})
            if labeller in said:
                raise ValueError(f"{labeller!r} ranks prompt {name!r} a second time")
            said[labeller] = "tie" if first == second else "A" if first < second else "B"
    return votes


def conflicting(votes: Votes) -> list[Pair]:
    """The pairs of which some labeller prefers the first and another one the second."""
    return [pair for pair, said in votes.items() if {"A", "B"} <= set(said.values())]


def preferences_of(samples: Sequence[Sample], votes: Votes, *, conflicts: str = "share") -> list[Preference]:
    """One preference for every pair with a vote, the one that most prefer as chosen; ties are kept.

    conflicts: what becomes of pairs on which labellers disagree. "share": `preferred` is the share that prefers the
    chosen one, ties counted half; "majority": 1, or 0.5 where both sides are equal; "drop": they are left out.

    Raises:
      ValueError: an unknown choice, or nothing but ties, from which nothing can be learned.
    """
    if conflicts not in CONFLICTS:
        raise ValueError(f"unknown conflicts {conflicts!r}{meant(conflicts, CONFLICTS)}; have {list(CONFLICTS)}")
    known, found = {one.id: one for one in samples}, []
    left_out = set(conflicting(votes)) if conflicts == "drop" else set()
    for pair, said in votes.items():
        if pair in left_out:
            continue
        share = sum({"A": 1.0, "tie": 0.5, "B": 0.0}[verdict] for verdict in said.values()) / len(said)
        name, first, second = pair if share >= 0.5 else (pair[0], pair[2], pair[1])
        sure = max(share, 1 - share)
        if conflicts == "majority" and sure > 0.5:
            sure = 1.0
        sample = known[name]
        found.append(Preference(sample.prompt, sample.completions[first], sample.completions[second], sure).checked())
    if not any(one.preferred != 0.5 for one in found):
        raise ValueError(
            f"nothing can be learned from {len(found)} pairs that are all ties"
            + (f"; {len(left_out)} with a conflict were left out" if left_out else "")
        )
    return found
