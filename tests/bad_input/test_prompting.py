"""Bad input of prompts: rules, examples, windows and files of rows; one line that says what was given."""

import json
from dataclasses import replace

import pytest

from research.apps.prompting import Item, Task
from research.apps.prompting.extract import extract
from research.apps.prompting.shots import build, choose
from research.evaluation.benchmarks.own_files import read_task

POOL = [Item(f"train/{i}", f"question {i}", answers=(str(i),)) for i in range(5)]
ASKED = Item("test/3", "What is it?", answers=("it",))
TASK = Task("riddles", [ASKED], metrics=("exact_match",), pool=POOL, max_new_tokens=4)
BARE = replace(TASK, pool=[*POOL[:1], Item("train/9", "nobody knows")])
YES_NO = "{{ text }}? ||| {{ label }}"


def table(folder, rows, name="rows.tsv"):
    path = folder / name
    path.write_text("\n".join("\t".join(row) for row in [["text", "label"], *rows]) + "\n")
    return path


def lines(folder, *rows):
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


CASES = {
    "unknown rule": (lambda p: extract("last_numbr", "7"), "'last_numbr', did you mean 'last_number'.*have .*'letter'"),
    "unknown way to choose": (
        lambda p: choose(TASK, ASKED, 1, how="nearst"),
        "'nearst', did you mean 'nearest'.*have .*'balanced'",
    ),
    "k larger than the data": (
        lambda p: choose(TASK, ASKED, 6),
        "riddles: k=6 examples; beside item 'test/3' the pool has 5",
    ),
    "k larger than the data beside the asked row": (
        lambda p: choose(TASK, POOL[2], 5),
        "riddles: k=5 examples; beside item 'train/2' the pool has 4",
    ),
    "no data to draw from": (lambda p: choose(replace(TASK, pool=()), ASKED, 1), "k=1 examples.*the pool has 0"),
    "negative k": (lambda p: choose(TASK, ASKED, -1), "k=-1 examples"),
    "example without an answer": (lambda p: build(BARE, ASKED, BARE.pool), "item 'train/9' has no known answer"),
    "balance of unknown answers": (
        lambda p: choose(BARE, ASKED, 1, how="balanced"),
        "item 'train/9' has no known answer",
    ),
    "window too small for one example": (
        lambda p: build(TASK, ASKED, POOL[:1], count=len, window=14),
        "riddles: item 'test/3' needs 15 tokens.*answer included; the window has 14",
    ),
    "window too small for a choice": (
        lambda p: build(TASK, Item("test/4", "?", (" a", " " + "b" * 20), (0,)), [], count=len, window=9),
        "item 'test/4' needs 22 tokens.*the window has 9",
    ),
    "window without a count": (lambda p: build(TASK, ASKED, [], window=9), "a window needs count"),
    "count without a window": (lambda p: build(TASK, ASKED, [], count=len), "a window needs count"),
    "examples beside published ones": (
        lambda p: build(replace(TASK, preamble="Q: 1\nA: 2"), ASKED, POOL[:2]),
        "riddles has published examples.*no place for 2 others",
    ),
    "column that the table lacks": (
        lambda p: read_task(table(p, [["a", "yes"]]), "{{ sentence }} ||| {{ label }}"),
        r"rows.tsv, line 2: .*'sentence' is undefined; it has \['label', 'text'\]",
    ),
    "column that one object lacks": (
        lambda p: read_task(lines(p, {"text": "a", "label": "yes"}, {"text": "b"}), YES_NO),
        r"rows.jsonl, line 2: .*'label' is undefined; it has \['text'\]",
    ),
    "row with too few values": (
        lambda p: read_task(table(p, [["a", "yes"], ["b"]]), YES_NO),
        r"rows.tsv, line 3: a value for every column was expected.*\['b', None\]",
    ),
    "row with too many values": (
        lambda p: read_task(table(p, [["a", "yes", "no"]]), YES_NO),
        "rows.tsv, line 2: a value for every column was expected, and no more",
    ),
    "answer that is no choice": (
        lambda p: read_task(table(p, [["a", "yes"], ["b", "maybe"]]), YES_NO, choices="no ||| yes"),
        r"rows.tsv, line 3: the answer 'maybe' is none of the choices \['no', 'yes'\]",
    ),
    "label that is no number": (
        lambda p: read_task(table(p, [["a", "7"]]), "{{ text }} ||| {{ ['no', 'yes'][label | int] }}"),
        "rows.tsv, line 2: .* needs what is not there",
    ),
    "choice given twice": (
        lambda p: read_task(table(p, [["a", "yes"]]), YES_NO, choices="yes ||| {{ label }}"),
        r"rows.tsv, line 2: .*gives the choices \['yes', 'yes'\]; expected different ones",
    ),
    "template without an answer": (
        lambda p: read_task(table(p, [["a", "yes"]]), "{{ text }}"),
        r"'prompt \|\|\| completion'; '\{\{ text \}\}' has 0 separators",
    ),
    "choices that are no Jinja": (
        lambda p: read_task(table(p, [["a", "yes"]]), YES_NO, choices="{{ no"),
        r"'\{\{ no' cannot be read",
    ),
    "line that is no JSON": (
        lambda p: read_task(table(p, [["a", "yes"]], "rows.jsonl"), YES_NO),
        "rows.jsonl, line 1: not JSON",
    ),
    "file of another kind": (
        lambda p: read_task(table(p, [["a", "yes"]], "rows.xlsx"), YES_NO),
        r"rows.xlsx is no file of rows: expected one of \('.jsonl'",
    ),
    "table without rows": (lambda p: read_task(table(p, []), YES_NO), "rows.tsv has no rows"),
}


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_refused_with_its_reason(name, tmp_path):
    call, message = CASES[name]
    with pytest.raises(ValueError, match=message) as caught:
        call(tmp_path)
    assert len(str(caught.value)) > 20
    assert "\n" not in str(caught.value)
