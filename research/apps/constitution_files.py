"""Constitutions from files: the published ones of Bai et al. as they are, or one JSON file of one's own."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research.core.names import meant
from research.data.preference import ASSISTANT

from .constitution import (
    ASK_CRITIQUE,
    ASK_REVISION,
    CRITIQUE,
    HUMAN,
    REVISION,
    Compared,
    Constitution,
    Principle,
    Revised,
)

PUBLISHED = {
    "principles": "CritiqueRevisionInstructions.json",
    "comparisons": "RLMadisonInstructions.json",
    "examples": "CritiqueRevisionFewShotPrompts.json",
    "compared": "RLMadisonFewShotPrompts.json",
    "reasoned": "RLMadisonPrecogFewShotPrompts.json",
}
_OPTIONS = " Options:"


class Scored(NamedTuple):
    """Answers that a model gave to a prompt, each with the score of a preference model."""

    prompt: str
    answers: tuple[str, ...]
    scores: tuple[float, ...]


def read_constitution(path: str | Path) -> Constitution:
    """A folder with the published files (`PUBLISHED`), or one JSON file of the same parts.

    The file: {"principles": {name: {"critique", "revision"}}, "comparisons": [text, ...], "examples": [{"prompt",
    "response", "principle", "critique", "revision"}, ...], "compared": [{"prompt", "better", "worse"}, ...]}, where a
    prompt is what the human says, `principle` is a name, and the last two parts may be absent.

    Raises:
      ValueError: no JSON (with its line), or a part or entry of another form; names file and entry.
      FileNotFoundError: names the file.
    """
    path = Path(path)
    return _published(path) if path.is_dir() else _own(path)


def read_revisions(path: str | Path) -> list[list[Revised]]:
    """Published samples of the supervised stage: the rounds of each prompt."""
    found = []
    for where, row in _lines(Path(path)):
        prompt, rounds = _at(row, "rl_prompt", str, where), []
        response = _sample(*_at(row, "initial_response", list, where)[:1], where=where)
        for entry in _at(row, "cst", list, where):
            principle = _principle(_at(entry, "cst_key", str, where), _at(entry, "cst_value", dict, where), where)
            said = [_sample(_at(entry, part, dict, where), where=where) for part in ("critique", "revision")]
            rounds.append(Revised(prompt, response, principle, *said))
            response = said[1]
        found.append(rounds)
    return found


def read_scored(path: str | Path) -> list[Scored]:
    """Published samples of reinforcement learning: the answers to each prompt with their scores."""
    found = []
    for where, row in _lines(Path(path)):
        sampled = _at(row, "sampled_answers", list, where)
        answers = tuple(_at(one, "sampled_string", str, where).removesuffix(HUMAN).strip() for one in sampled)
        scores = tuple(
            _at(score, "pm_score", float, where) for one in sampled for score in _at(one, "pm_scores", list, where)[:1]
        )
        if not len(answers) == len(scores) > 0:
            raise ValueError(f"{where}: {len(answers)} answers with {len(scores)} scores")
        found.append(Scored(_at(row, "rl_prompt", str, where), answers, scores))
    return found


def _own(path: Path) -> Constitution:
    given, known = _json(path, dict), ("principles", "comparisons", "examples", "compared")
    for name in given:
        if name not in known:
            raise ValueError(f"{path}: unknown part {name!r}{meant(name, known)}; have {list(known)}")
    named = {}
    for name, entry in _at(given, "principles", dict, str(path)).items():
        where = f"{path}, principle {name!r}"
        named[name] = Principle(name, *_texts(entry, ("critique", "revision"), where))
    comparisons = []
    for where, entry in _numbered(_at(given, "comparisons", list, str(path)), f"{path}, comparisons"):
        comparisons.append(_full(entry, where))
    examples = []
    for where, entry in _numbered(given.get("examples", []), f"{path}, examples"):
        prompt, response, name, *said = _texts(
            entry, ("prompt", "response", "principle", "critique", "revision"), where
        )
        if name not in named:
            raise ValueError(f"{where}: no principle {name!r}{meant(name, named)}; have {sorted(named)}")
        examples.append(Revised(dialogue(prompt), response, named[name], *said))
    compared = []
    for where, entry in _numbered(given.get("compared", []), f"{path}, compared"):
        prompt, *answers = _texts(entry, ("prompt", "better", "worse"), where)
        compared.append(Compared(dialogue(prompt), *answers))
    return _whole(path, named.values(), comparisons, examples, compared, ())


def dialogue(question: str) -> str:
    """What a human says, as a prompt that the assistant is to answer."""
    return f"{HUMAN} {question.strip()}{ASSISTANT}"


def _published(folder: Path) -> Constitution:
    """The published files; the examples may be absent."""
    path = folder / PUBLISHED["principles"]
    principles = [_principle(name, entry, f"{path}, {name!r}") for name, entry in _json(path, dict).items()]
    path = folder / PUBLISHED["comparisons"]
    comparisons = []
    for where, entry in _numbered(_json(path, list), str(path)):
        text = _full(entry, where)
        if not text.endswith(_OPTIONS):
            raise ValueError(f"{where}: expected a text that ends with {_OPTIONS!r}, given {text!r:.80}")
        comparisons.append(text.removesuffix(_OPTIONS))
    examples, compared, reasoned = [], [], []
    if (path := folder / PUBLISHED["examples"]).is_file():
        examples = [_example(entry, where) for where, entry in _numbered(_json(path, list), str(path))]
    if (path := folder / PUBLISHED["compared"]).is_file():
        for where, entry in _numbered(_json(path, list), str(path)):
            better, worse = (_full(_at(entry, side, list, where)[0], where) for side in ("corrects", "incorrects"))
            compared.append(Compared(_at(entry, "prompt", str, where), better, worse))
    if (path := folder / PUBLISHED["reasoned"]).is_file():
        for where, entry in _numbered(_json(path, list), str(path)):
            text = _at(entry, "prompt", str, where)
            if text.count("{}") != 1:
                raise ValueError(f"{where}: expected one {{}} where the question stands, found {text.count('{}')}")
            reasoned.append("\n\n" + text.strip())
    return _whole(folder, principles, comparisons, examples, compared, reasoned)


def _whole(path: Path, principles: Any, comparisons: Any, *rest: Any) -> Constitution:
    made = Constitution(tuple(principles), tuple(comparisons), *map(tuple, rest))
    for name in ("principles", "comparisons"):
        if not getattr(made, name):
            raise ValueError(f"{path}: a constitution needs at least one of its {name}")
    return made


def _principle(name: str, entry: Any, where: str) -> Principle:
    """A published one, with the marks around its texts taken off."""
    asked, *more = _at(entry, "prompt", list, where) or [""]
    if more:
        raise ValueError(f"{where}: expected one request for a critique, found {1 + len(more)}")
    wanted = _at(entry, "edit_request", str, where)
    return Principle(
        name, _between(asked, ASK_CRITIQUE, CRITIQUE, where), _between(wanted, ASK_REVISION, REVISION, where)
    )


def _between(text: Any, first: str, last: str, where: str) -> str:
    if not isinstance(text, str) or not (text.startswith(first) and text.endswith(last)):
        raise ValueError(f"{where}: expected a text from {first!r} to {last!r}, given {text!r:.80}")
    return _full(text[len(first) : -len(last)], where)


def _sample(entry: Any = None, *, where: str) -> str:
    return _at(entry, "sample", str, where).strip()


def _example(text: Any, where: str) -> Revised:
    """A published dialogue with the parts of one round."""
    rest, parts = _full(text, where).removesuffix(HUMAN.strip()).rstrip(), []
    for mark in (REVISION, ASK_REVISION, CRITIQUE, ASK_CRITIQUE, ASSISTANT):
        rest, found, part = rest.rpartition(mark)
        if not found:
            raise ValueError(f"{where}: no {mark.strip()!r} where one was expected")
        parts.append(part.strip())
    revision, wanted, critique, asked, response = parts
    return Revised(f"\n\n{rest}{ASSISTANT}", response, Principle(where, asked, wanted), critique, revision)


def _json(path: Path, kind: type) -> Any:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(given, kind):
        raise ValueError(f"{path}: expected {_NAMES[kind]}, found {type(given).__name__}")
    return given


_NAMES = {dict: "an object", list: "a list", str: "a text", float: "a number"}


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            yield f"{path}, line {number}", json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is no JSON: {error}") from None


def _numbered(entries: Any, what: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(entries, list):
        raise ValueError(f"{what}: expected a list, found {type(entries).__name__}")
    return ((f"{what}, entry {number}", entry) for number, entry in enumerate(entries, start=1))


def _at(entry: Any, name: str, kind: type, where: str) -> Any:
    """entry[name], of this kind."""
    if not isinstance(entry, Mapping) or name not in entry:
        have = sorted(entry) if isinstance(entry, Mapping) else type(entry).__name__
        raise ValueError(f"{where}: expected {name!r} with {_NAMES[kind]}, have {have}")
    if not isinstance(entry[name], kind):
        raise ValueError(f"{where}: {name!r} must be {_NAMES[kind]}, found {type(entry[name]).__name__}")
    return entry[name]


def _texts(entry: Any, names: Sequence[str], where: str) -> list[str]:
    return [_full(_at(entry, name, str, where), f"{where}, {name}") for name in names]


def _full(text: Any, where: str) -> str:
    """The text without blanks around it; refuses none."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where}: expected a text, given {text!r:.80}")
    return text.strip()
