"""Python's own documentation as text and as tasks; the scan for leaks goes over every prompt there is."""

import ast
from collections import Counter

import pytest

from research.data import python_docs
from research.data.instructions import PHRASINGS, instruction_tasks, leaks, summary_and_body, tasks_of
from research.data.python_docs import Function


@pytest.fixture(scope="module")
def tasks():
    return instruction_tasks(phrasings=2)


def test_corpus_is_large_sorted_and_repeatable():
    documents = python_docs.corpus()
    names = [d.name for d in documents]
    assert sum(len(d.text) for d in documents) > 1_500_000 and len(set(names)) == len(names)
    assert python_docs.digest(documents) == python_docs.digest(python_docs.corpus())
    assert python_docs.digest(documents[1:]) != python_docs.digest(documents)
    train, heldout = python_docs.split(documents, 0.1)
    assert not {d.text for d in train} & {d.text for d in heldout}
    assert 0.03 < len(heldout) / len(documents) < 0.2


def test_functions_and_exclusion():
    found = {f.key: f for f in python_docs.functions()}
    assert len(found) > 3000
    assert found["textwrap.dedent"].signature == "(text)"
    # Methods are shown as they are called.
    assert found["textwrap.TextWrapper.wrap"].signature == "(text)"
    shown = next(d for d in python_docs.docstrings() if d.name == "docs:textwrap").text
    hidden = next(d for d in python_docs.docstrings({"textwrap.dedent"}) if d.name == "docs:textwrap").text
    assert "textwrap.dedent(text)" in shown and "textwrap.dedent(text)" not in hidden


@pytest.mark.parametrize(
    ("source", "method", "want"),
    [
        ("def f(): pass", False, "()"),
        ("def f(self): pass", True, "()"),
        ("def f(self, a, b=1, *c, d, e=2, **k): pass", True, "(a, b=1, *c, d, e=2, **k)"),
        ("def f(self=None, a=3): pass", True, "(a=3)"),
        ("def f(x, /, y): pass", True, "(y)"),
        ("def f(*args): pass", True, "(*args)"),
    ],
)
def test_signatures(source, method, want):
    assert python_docs.signature(ast.parse(source).body[0], method=method) == want


def test_no_prompt_gives_its_answer_away(tasks):
    functions = {f.key: f for f in python_docs.functions()}
    train, heldout = tasks
    assert len(train) > 5000 and len(heldout) > 500
    for task in train + heldout:
        function = functions[task.function]
        prompt = "".join(task.prompt.split()).lower()
        assert leaks(task.prompt, function) == []
        # And once more without the code under test.
        summary = function.docstring.split("\n\n")[0]
        assert "".join(summary.split()).lower() not in prompt
        assert "".join(function.docstring.split("\n")[0].split()).lower() not in prompt
        words = "".join(c if c.isalnum() or c in "_." else " " for c in task.prompt.lower()).split()
        stripped = {w.strip(".") for w in words}
        parts = {p for w in stripped for p in w.split(".")}
        assert function.name.lower() not in parts and function.module.lower() not in stripped
        if function.signature != "()":
            assert "".join(function.signature.split()).lower() not in prompt


def test_split_is_by_function_and_without_twins(tasks):
    train, heldout = tasks
    assert not {t.function for t in train} & {t.function for t in heldout}
    assert not {t.prompt for t in train} & {t.prompt for t in heldout}
    lines = [{t.completion for t in side if t.task == "first_line"} for side in tasks]
    assert not lines[0] & lines[1]
    for side in tasks:
        assert len({t.prompt for t in side}) == len(side)
        assert set(Counter(t.task for t in side)) == set(PHRASINGS)
    assert instruction_tasks(phrasings=2)[1] == heldout


def test_by_hand():
    doc = "Write the data out.\n\nCalls write() of io.files until done; see write_all."
    function = Function("io.files", "Sink.write", "(data, *, flush=False)", doc)
    made = tasks_of(function, phrasings=4)
    bodies = {t.prompt for t in made}
    assert all("Calls ___() of ___ until done; see write_all." in b for b in bodies)
    # Wordings that say "write" would name the function.
    assert not any("Write" in b for b in bodies)
    answers = {t.task: t.completion for t in made}
    assert answers == {
        "first_line": "Write the data out.",
        "name": "write",
        "signature": "(data, *, flush=False)",
        "module": "io.files",
    }
    assert made[0].example() == {"prompt": made[0].prompt, "completion": made[0].completion}
    assert leaks("a WRITE b", function) == ["name"] and leaks("see io.files.x", function) == ["module"]
    assert leaks("write  the data\nout.", function) == ["first line", "name"]
    assert leaks("f(data,*,flush=False)", function) == ["signature"]
    assert leaks("overwrite write_all rewrite", function) == []


def test_what_cannot_be_hidden_is_left_out():
    assert tasks_of(Function("m", "f", "(a)", "Only a line.")) == []
    assert tasks_of(Function("m", "f", "(a)", "One.\n\nf")) == []
    twice = Function("m", "f", "(a)", "Do it.\n\nRemember: do it. Then rest.")
    assert tasks_of(twice) == []
    none = Function("m", "g", "()", "Do it.\n\nThe rest, long enough to stand.")
    assert {t.task for t in tasks_of(none)} == {"first_line", "name", "module"}
    assert summary_and_body("Two\nlines.\n\nBody.") == ("Two lines.", "Body.")
    long = tasks_of(Function("m", "g", "(a)", "Do it.\n\n" + "word " * 500), max_body=50)
    assert all(len(t.prompt) < 200 and " ..." in t.prompt for t in long)
