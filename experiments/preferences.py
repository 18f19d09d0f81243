"""Preference data: completions of prompts, ranked by reward models, judges or people, as pairs to learn from.

    python -m experiments.preferences --config=configs/preferences.py --workdir=runs/preferences

Samples and each labeller's ranks are JSON lines in the folder, kept as they come. Started again, only what is missing
is done, and a form that people have filled in since is read. `pairs.jsonl` is for `experiments.train` (objective
"preference"), `conflicts.jsonl` holds the pairs on which labellers disagree.
"""

import hashlib
import importlib
import json
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

# Also as `python experiments/preferences.py`, where the folder of the script would be searched instead of its parent.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import command
from experiments.cells import Cell, data_folder, sweep
from experiments.loading import encode, load
from experiments.story_world import make_reward, openings
from research.core import compilation, tree
from research.core.names import meant
from research.data import rankings
from research.data.files import read_examples
from research.data.preference import Prompt
from research.data.rankings import Ranking, Sample
from research.data.templates import encode_chat_prompt
from research.decoding import Sampling, generate
from research.evaluation.agreement import of_votes
from research.evaluation.journal import Journal
from research.evaluation.judge import Address, NoAnswer, compare, rate
from research.evaluation.text_scorer import TextScorer
from research.recipes.rollouts import Rollout, scored
from research.report import print_table
from research.report.terminal import Steps

KINDS = ("scorer", "reward", "judge", "people")
FORMS = ("pairwise", "single")

Write = Callable[[Sequence[tuple[str, Prompt]]], list[list[str]]]  # (id, prompt) of each -> its completions
Rank = Callable[[Sequence[Sample]], list[tuple[Any, ...]]]  # ranks of each sample's completions


def told(prompt: Prompt) -> str:
    """A prompt as one text, for those who rank answers to it."""
    return prompt if isinstance(prompt, str) else "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt)


class Local:
    """Completions by a model on this machine; the noise of each depends on the seed, its prompt's id and its number."""

    def __init__(self, config: Mapping[str, Any], root: Path):
        self.loaded = load(config["writer"] or str(root / "stories260K" / "checkpoint_v1.bin"), None, "f32")
        self.config = config
        self.made_of = {"weights": tree.fingerprint(self.loaded.params)}

    def prompts(self, workdir: Path, console: Console) -> list[Prompt]:
        """Openings of its own."""
        parts = (self.loaded.model, self.loaded.params, self.loaded.tokenizer, self.config["openings"])
        cell = Cell({"made": "openings"}, {**self.config["openings"], **self.made_of}, lambda: openings(*parts))
        return sweep([cell], workdir, console)[0]["texts"]

    def __call__(self, prompts: Sequence[tuple[str, Prompt]]) -> list[list[str]]:
        loaded, config = self.loaded, self.config
        k, size = config["completions"], config["batch_size"]
        asked = [(f"{name}/{i}", self._ids(prompt)) for name, prompt in prompts for i in range(k)]
        sampling = Sampling(temperature=config["temperature"], suppress=loaded.unspoken, **loaded.forced)
        texts: list[str] = []
        for first in range(0, len(asked), size):
            some = asked[first : first + size]
            full = some + some[:1] * (size - len(some))  # full batches only: one shape
            made = generate(
                loaded.model,
                loaded.params,
                [ids for _, ids in full],
                max_new_tokens=config["new_tokens"],
                sampling=sampling,
                stop_tokens=loaded.stops,
                tokenizer=loaded.tokenizer,
                key=config["seed"],
                seeds=[zlib.crc32(name.encode()) for name, _ in full],
                logprobs=False,
            )
            texts += (made.texts or [])[: len(some)]
        return [texts[i : i + k] for i in range(0, len(texts), k)]

    def _ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return encode(self.loaded, prompt)
        return encode_chat_prompt(prompt, self.loaded.tokenizer)


class Served:
    """Completions by a model behind an address, which draws its own noise."""

    def __init__(self, config: Mapping[str, Any]):
        knobs = {"temperature": config["temperature"], "max_tokens": config["new_tokens"]}
        self.address, self.k = Address(**config["writer"], **knobs), config["completions"]
        self.made_of = dict(config["writer"])

    def prompts(self, workdir: Path, console: Console) -> list[Prompt]:
        raise ValueError("a writer behind an address needs `prompts`, a file")

    def __call__(self, prompts: Sequence[tuple[str, Prompt]]) -> list[list[str]]:
        texts = self.address([told(prompt) for _, prompt in prompts for _ in range(self.k)])
        if lost := [text for text in texts if isinstance(text, NoAnswer)]:  # not an empty one: asked again, it may come
            raise ConnectionError(f"{len(lost)} of {len(texts)} completions never came; the first: {lost[0]}")
        return [texts[i : i + self.k] for i in range(0, len(texts), self.k)]


def read_prompts(path: str | Path) -> list[tuple[str, Prompt]]:
    """(id, prompt) of each row; without an `id`, the prompt's digest is one.

    Raises:
      ValueError: a row without a prompt, or one id twice; names the row.
    """
    found: dict[str, Prompt] = {}
    for number, row in enumerate(read_examples(path)):
        if not row.get("prompt") or not isinstance(row["prompt"], str | list):
            raise ValueError(f"{path}, row {number}: expected a prompt, a text or a chat; it has {sorted(row)}")
        name = str(row.get("id") or digest(row["prompt"]))
        if name in found:
            raise ValueError(f"{path}, row {number}: the id {name!r} is there twice")
        found[name] = row["prompt"]
    return list(found.items())


def digest(prompt: Prompt) -> str:
    return hashlib.sha256(json.dumps(prompt).encode()).hexdigest()[:12]


def sampled(writer: Any, config: Mapping[str, Any], workdir: Path, console: Console) -> list[Sample]:
    """Completions of every prompt, those that are empty or there twice left out, and prompts with fewer than two.

    Raises:
      ValueError: fewer than two completions are asked for, or no prompt has two that differ.
    """
    if config["completions"] < 2:
        raise ValueError(f"a ranking needs at least 2 completions of a prompt, asked for {config['completions']}")
    given = config["prompts"]
    prompts = read_prompts(given) if given else [(digest(p), p) for p in writer.prompts(workdir, console)]
    settings = {name: config[name] for name in ("completions", "new_tokens", "temperature", "seed")}
    journal = Journal(workdir / "samples.jsonl", settings | writer.made_of)
    missing = [one for one in prompts if one[0] not in journal.rows]

    def store(some: Sequence[tuple[str, Prompt]]) -> None:
        made = zip(some, writer(some), strict=True)
        journal.add({"key": name, "prompt": prompt, "completions": texts} for (name, prompt), texts in made)

    in_portions("completions", missing, len(prompts), config["portion"], store, console)
    rows = [journal.rows[name] for name, _ in prompts]
    kept = [list(dict.fromkeys(text for text in row["completions"] if text.strip())) for row in rows]
    samples = [
        Sample(name, prompt, tuple(texts))
        for (name, prompt), texts in zip(prompts, kept, strict=True)
        if len(texts) > 1
    ]
    written, left = sum(len(row["completions"]) for row in rows), sum(len(one.completions) for one in samples)
    console.print(f"{len(samples)} prompts with {left} completions to rank; {written - left} left out: empty or equal")
    if not samples:
        raise ValueError(f"none of {len(prompts)} prompts has two completions that differ and are not empty")
    return samples


def in_portions(
    title: str, missing: Sequence[Any], total: int, size: int, store: Callable[[Sequence[Any]], None], console: Console
) -> None:
    """Does what is missing under a progress bar, `size` at a time."""
    with Steps(title, total, unit="prompts", already=total - len(missing), console=console) as bar:
        for first in range(0, len(missing), size):
            store(missing[first : first + size])
            bar.advance(len(missing[first : first + size]))


def by_scores(score: Callable[[Sequence[str], Sequence[str]], Any]) -> Rank:
    """Ranks by a reward function of prompts and answers; see `rollouts.scored` for what it refuses."""

    def rank(samples: Sequence[Sample]) -> list[tuple[Any, ...]]:
        rows = [(told(one.prompt), text) for one in samples for text in one.completions]
        prompts, answers = map(list, zip(*rows, strict=True))
        nothing = np.empty(0)
        scores = iter(scored(score, Rollout(prompts, answers, {}, nothing, nothing, nothing)).tolist())
        return [rankings.ranks_of([next(scores) for _ in one.completions]) for one in samples]

    return rank


def by_judge(judge: Any, form: str) -> Rank:
    """Ranks by a language model: "single" ratings, or "pairwise" verdicts in both orders, of which the wins count."""

    def rank(samples: Sequence[Sample]) -> list[tuple[Any, ...]]:
        if form == "single":
            rows = [{"question": told(one.prompt), "answer": text} for one in samples for text in one.completions]
            ratings = iter(rate(judge, rows).ratings)
            return [rankings.ranks_of([next(ratings) for _ in one.completions]) for one in samples]
        pairs = [(one, i, j) for one in samples for i, j in combinations(range(len(one.completions)), 2)]
        asked = [
            {"question": told(s.prompt), "answer_a": s.completions[i], "answer_b": s.completions[j]}
            for s, i, j in pairs
        ]
        verdicts: dict[str, dict] = {one.id: {} for one in samples}
        for (one, i, j), verdict in zip(pairs, compare(judge, asked).verdicts, strict=True):
            verdicts[one.id][i, j] = verdict
        return [rankings.ranks_of(rankings.points_of(len(s.completions), verdicts[s.id])) for s in samples]

    return rank


def make_rank(
    name: str, given: Mapping[str, Any], config: Mapping[str, Any], workdir: Path, console: Console
) -> tuple[Rank, dict[str, Any]]:
    """What a labeller of the config does, people excepted, and what it is made of besides its settings.

    Raises:
      ValueError: an unknown form, or a judge that cannot be imported.
    """
    if "scorer" in given:
        scorer = TextScorer.load(given["scorer"])
        rank = by_scores(lambda prompts, answers: scorer(list(zip(prompts, answers, strict=True))))
        return rank, {"weights": tree.fingerprint(scorer.params)}
    if "reward" in given:
        reward = make_reward(given["reward"], config, data_folder(config["data"]), workdir, console)
        return by_scores(reward), {"sentiment": config["sentiment"]} if given["reward"].startswith("sst2 ") else {}
    form = given.get("form", "pairwise")
    if form not in FORMS:
        raise ValueError(f"labeller {name!r} has the unknown form {form!r}{meant(form, FORMS)}; have {list(FORMS)}")
    if not isinstance(given["judge"], str):
        return by_judge(Address(**given["judge"]), form), {}
    module, _, function = given["judge"].partition(":")
    try:
        return by_judge(getattr(importlib.import_module(module), function), form), {}
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"judge {given['judge']!r} of labeller {name!r} is no 'module:function': {error}") from None


def ranked(
    name: str,
    given: Mapping[str, Any],
    samples: Sequence[Sample],
    config: Mapping[str, Any],
    workdir: Path,
    console: Console,
) -> list[Ranking]:
    """One labeller's rankings: computed where they are missing, or read from the form that people fill in."""
    if "people" in given:
        rankings.add_form(given["people"], name, samples)
        found = rankings.read_rankings(given["people"], samples)
        people = sorted({one.labeller for one in found})
        console.print(f"{given['people']}: {len(found)} rankings by {people}", soft_wrap=True, markup=False)
        return found
    rank, made_of = make_rank(name, given, config, workdir, console)
    journal = Journal(workdir / f"ranked_{name}.jsonl", {"labeller": dict(given), **made_of})
    # What was ranked stands with the ranks: they are asked for again where the completions are others.
    content = {one.id: digest(list(one.completions)) for one in samples}
    missing = [one for one in samples if f"{one.id} {content[one.id]}" not in journal.rows]

    def store(some: Sequence[Sample]) -> None:
        made = zip(some, rank(some), strict=True)
        journal.add({"key": f"{one.id} {content[one.id]}", "ranks": ranks} for one, ranks in made)

    in_portions(f"ranked by {name}", missing, len(samples), config["portion"], store, console)
    return [Ranking(one.id, name, tuple(journal.rows[f"{one.id} {content[one.id]}"]["ranks"])) for one in samples]


def combined(
    samples: Sequence[Sample], found: Sequence[Ranking], config: Mapping[str, Any], workdir: Path, console: Console
) -> None:
    """Writes the pairs and the conflicts, and says how far the labellers agree."""
    votes = rankings.votes_of(samples, found)
    who = sorted({one.labeller for one in found})
    if config["agreement"]:
        facts = of_votes(votes, who)
        print_table(f"Agreement of {', '.join(who)}", ["", "value"], list(facts.items()), console=console)
        (workdir / "agreement.json").write_text(json.dumps(facts, indent=1) + "\n")
    known = {one.id: one for one in samples}
    disputed = [
        {"id": name, "prompt": s.prompt, "A": s.completions[i], "B": s.completions[j], "said": votes[name, i, j]}
        for name, i, j in rankings.conflicting(votes)
        for s in [known[name]]
    ]
    pairs = [one._asdict() for one in rankings.preferences_of(samples, votes, conflicts=config["conflicts"])]
    for name, rows in (("conflicts", disputed), ("pairs", pairs)):
        part = workdir / f"{name}.part"
        part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        part.replace(workdir / f"{name}.jsonl")
    ties = sum(row["preferred"] == 0.5 for row in pairs)
    told_of = f"{len(pairs)} pairs, {ties} of them ties; labellers disagree on {len(disputed)}"
    console.print(f"{told_of}. To learn from: [bold]{workdir / 'pairs.jsonl'}[/]", soft_wrap=True)


def work(config: dict[str, Any], workdir: Path, console: Console) -> None:
    """Samples, ranks and combines what is not there yet."""
    compilation.use_cache()
    for name, given in config["labellers"].items():
        if len(set(given) & set(KINDS)) != 1:
            raise ValueError(f"labeller {name!r} is one of {list(KINDS)}; got {dict(given)}")
    if not config["labellers"]:
        raise ValueError("there is no labeller to rank anything")
    root = data_folder(config["data"])
    writer = Served(config) if isinstance(config["writer"], Mapping) else Local(config, root)
    samples = sampled(writer, config, workdir, console)
    found = [
        ranking
        for name, given in config["labellers"].items()
        for ranking in ranked(name, given, samples, config, workdir, console)
    ]
    if not found:
        console.print("nothing is ranked yet: fill in the ranks, then start the same command again")
        return
    combined(samples, found, config, workdir, console)


if __name__ == "__main__":
    command.run(work, config="configs/preferences.py", workdir="runs/preferences")
