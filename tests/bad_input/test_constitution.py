"""Bad input of Constitutional AI: one line that names file and entry, the prompt, or what the assistant did."""

import json

import pytest

from research.apps.constitution import (
    CHOICES,
    Constitution,
    Principle,
    Revised,
    by_writing,
    prefer,
    revise,
    soft_label,
    supervised,
)
from research.apps.constitution_files import dialogue, read_constitution, read_revisions, read_scored
from research.evaluation.benchmarks import load

CALM = Principle("calm", "Is it calm?", "Make it calm.")
OWN = Constitution((CALM,), ("Choose the calm one.",))
GOOD = {"principles": {"calm": {"critique": "Is it?", "revision": "Make it."}}, "comparisons": ["Choose."]}
WHY = [dialogue("why?")]
SHOWN = {"prompt": "q", "response": "a", "principle": "clam", "critique": "c", "revision": "r"}
REQUEST = {"prompt": ["\n\nCritiqueRequest: x\n\nCritique:"], "edit_request": "\n\nRevisionRequest: y\n\nRevision:"}


def own(folder, **parts):
    """The good file with other parts; None takes one away."""
    path = folder / "own.json"
    path.write_text(json.dumps({k: v for k, v in (GOOD | parts).items() if v is not None}))
    return read_constitution(path)


def published(folder, principles=None, comparisons=("\nChoose. Options:",), **more):
    """A folder of published files of which some are broken."""
    for name, content in {
        "CritiqueRevisionInstructions": {"harmful0": REQUEST} if principles is None else principles,
        "RLMadisonInstructions": list(comparisons),
        **more,
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return read_constitution(folder)


def lines(folder, name, *rows):
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def broken(folder):
    path = folder / "own.json"
    path.write_text('{"principles": {\n "calm": }')
    return read_constitution(path)


def hhh(folder, *rights):
    rows = [{"prompt": f"q{i}?", "corrects": [r], "incorrects": [" (A)"]} for i, r in enumerate(rights)]
    lines(folder, "HarmfulVsEthical.jsonl", *rows)
    return load("hhh/ethical", folder)


def uneven(questions):
    return [(-1.0, -1.0)]


def chain(revision):
    return [Revised(WHY[0], "a", CALM, "c", revision)]


CASES = {
    "no JSON": (broken, r"own.json is no JSON: .*line 2 column 10"),
    "no object": (lambda p: read_constitution(lines(p, "own.json", "[1]")), r"own.json: expected an object, found"),
    "unknown part": (lambda p: own(p, principals={}), r"unknown part 'principals', did you mean 'principles'"),
    "no principles": (
        lambda p: own(p, principles=None),
        r"own.json: expected 'principles' with an? object, have \['comp",
    ),
    "none of them": (lambda p: own(p, principles={}), r"needs at least one of its principles"),
    "no comparisons": (lambda p: own(p, comparisons=[]), r"needs at least one of its comparisons"),
    "comparison": (lambda p: own(p, comparisons=["Choose.", 7]), r"comparisons, entry 2: expected a text, given 7"),
    "revision": (
        lambda p: own(p, principles={"calm": {"critique": "Is it?"}}),
        r"own.json, principle 'calm': expected 'revision' with a text, have \['critique'\]",
    ),
    "blank": (
        lambda p: own(p, principles={"calm": {"critique": " ", "revision": "x"}}),
        r"principle 'calm', critique: expected a text, given ' '",
    ),
    "example": (lambda p: own(p, examples=[SHOWN]), r"examples, entry 1: no principle 'clam', did you mean 'calm'"),
    "compared": (lambda p: own(p, compared=[{"prompt": "q", "better": "a"}]), r"compared, entry 1: expected 'worse'"),
    "no list": (lambda p: own(p, examples={"a": 1}), r"own.json, examples: expected a list, found dict"),
    "marks": (
        lambda p: published(p, {"harmful0": REQUEST | {"edit_request": "\n\nRewrite it."}}),
        r"Instructions.json, 'harmful0': expected a text from '\\n\\nRevisionRequest:' to .*Rewrite it",
    ),
    "options": (lambda p: published(p, comparisons=["Choose."]), r"RLMadison.*entry 1: expected a text that ends with"),
    "no file": (lambda p: read_constitution(p / "absent.json"), r"absent.json"),
    "few shots": (
        lambda p: published(p, CritiqueRevisionFewShotPrompts=["\n\nHuman: q\n\nAssistant: a\n\nCritique: c"]),
        r"FewShotPrompts.json, entry 1: no 'Revision:' where one was expected",
    ),
    "reasons": (
        lambda p: published(p, RLMadisonPrecogFewShotPrompts=[{"prompt": "no place"}]),
        r"Precog.*entry 1: expected one \{\} where the question stands, found 0",
    ),
    "sample": (
        lambda p: read_revisions(lines(p, "s.jsonl", {"rl_prompt": "q", "initial_response": [], "cst": []})),
        r"s.jsonl, line 1: expected 'sample'",
    ),
    "line": (lambda p: read_revisions(lines(p, "s.jsonl", "{")), r"s.jsonl, line 1 is no JSON"),
    "scores": (
        lambda p: read_scored(lines(p, "s.jsonl", {"rl_prompt": "q", "sampled_answers": []})),
        r"s.jsonl, line 1: 0 answers with 0 scores",
    ),
    "responses": (lambda p: revise(list, WHY, [], OWN), r"1 prompts but 0 responses"),
    "rounds": (lambda p: revise(list, WHY, ["a"], OWN, rounds=0), r"rounds must be at least 1, given 0"),
    "shots": (lambda p: revise(list, WHY, ["a"], OWN, shots=1), r"1 examples were asked for; the constitution has 0"),
    "answers": (lambda p: revise(lambda prompts: [], WHY, ["a"], OWN), r"asked 1 prompts, it gave 0 texts"),
    "no text": (
        lambda p: by_writing(lambda prompts: [None])([("q", CHOICES)]),
        r"it gave 1 texts, among them NoneType",
    ),
    "empty revision": (
        lambda p: supervised([chain("b"), chain("  ")]),
        r"prompt 1, '\\n\\nHuman: why\?\\n\\nAssistant:': the revision in round 1 is empty",
    ),
    "all empty": (lambda p: supervised([chain("")], unusable="drop"), r"none of 1 revisions is left"),
    "unusable": (lambda p: supervised([chain("b")], unusable="skip"), r"unknown unusable='skip'; have \['drop'"),
    "equal": (lambda p: prefer(uneven, WHY, [("a", "a ")], OWN), r"no pair is left of 1"),
    "one class": (
        lambda p: prefer(lambda questions: [(-1.0, -3.0)] * len(questions), WHY * 2, [("a", "b")] * 2, OWN),
        r"one class only: the assistant prefers neither answer in any of 2 pairs",
    ),
    "comparisons": (lambda p: prefer(uneven, WHY, [("a", "b")], OWN), r"asked 2, it answered 1"),
    "label": (lambda p: soft_label([0.0, float("nan")]), r"log-probabilities of two choices, given"),
    "three choices": (lambda p: soft_label([0.0, 0.0, 0.0]), r"log-probabilities of two choices, given"),
    "clamp": (lambda p: soft_label([0.0, 0.0], clamp=(0.6, 0.4)), r"clamp is a range in 0 .. 1, given \(0.6, 0.4\)"),
    "one letter": (lambda p: hhh(p, " (B)", " (B)"), r"HarmfulVsEthical.jsonl: \(B\) is right in all 2 rows"),
    "letters": (lambda p: hhh(p, " (A)"), r"line 1: expected ' \(A\)' and ' \(B\)' as corrects and incorrects, given"),
    "dialogues": (
        lambda p: load(
            "hhh/text", lines(p, "438HHHEvaluations.jsonl", {"text_correct": "a", "text_incorrect": "b"}).parent
        ),
        r"438HHHEvaluations.jsonl, line 1: chosen and rejected without a prompt must be dialogues",
    ),
}


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "-"))
def test_refused_in_one_line(name, tmp_path):
    call, message = CASES[name]
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)
