"""Program-aided answers: published prompts and programs, what is found in a reply, values, errors, votes."""

import io
import json
from itertools import islice

import pytest
from rich.console import Console

from configs.programs import get_config
from experiments import programs
from research.apps import pal
from research.apps.protocol import Options
from research.apps.sandbox import Limits, isolation
from tests.apps.scripted import Scripted

needs_sandbox = pytest.mark.skipif(isolation().level == "unsafe", reason=isolation().reason)
ADD = "def solution():\n    return 3 + 4\n"


def test_the_prompt_has_the_published_form():
    """That of math_prompts.py in the authors' repository, whose five blank lines and two trailing ones matter."""
    examples = [("Ann has 3 nuts. She finds 4. How many has she?", f"\n\n{ADD}\n")]
    assert pal.prompt("How many are 2 and 2?", examples) == (
        "Q: Ann has 3 nuts. She finds 4. How many has she?\n\n# solution in Python:\n\n\n"
        "def solution():\n    return 3 + 4\n\n\n\n\n\n"
        "Q: How many are 2 and 2?\n\n# solution in Python:\n\n\n"
    )


@needs_sandbox
def test_the_symbolic_prompt_has_the_published_form():
    """That of penguin_prompt.py, whose programs are no functions."""
    table = "Louis, 7\nGwen, 8\nWho is older?"
    ages = (
        "# Put the ages into a list.\nages = [('Louis', 7), ('Gwen', 8)]\n\nanswer = max(ages, key=lambda x: x[1])[0]"
    )
    text = pal.symbolic_prompt("Who is young?", [(table, ages)])
    assert text == f'"""\nQ: {table}\n"""\n\n{ages}\n\n\n"""\nQ: Who is young?\n"""\n'
    model = Scripted([f'\n{ages}\n\n\n"""\nQ: Next?\n"""'])
    [solution] = pal.solve(model, ["Who is young?"], [(table, ages)], form=pal.symbolic_prompt)
    assert (solution.prompt, solution.vote.answer) == (text, "Gwen")


@pytest.mark.parametrize(
    ("reply", "program"),
    [
        (f"```python\n{ADD}```\nIt adds.", ADD),
        (f"First:\n```\n{ADD}```\nor\n```py\nanswer = 8\n```", ADD),
        (f"```python\n{ADD}", ADD),
        (f"  ```python\n{ADD}  ```", ADD),
        (f"\n\n{ADD}\n\n\nQ: And now?\n\n# solution in Python:", ADD.rstrip("\n")),
        (f"Here is a function that adds:\n\n{ADD}", ADD.rstrip("\n")),
        (f"I use math.\nimport math\n\n{ADD}", f"import math\n\n{ADD.rstrip()}"),
        ("# Add.\nanswer = 3 + 4\n", "# Add.\nanswer = 3 + 4"),
        ("", ""),
    ],
)
def test_a_program_is_found_in_a_reply(reply, program):
    assert pal.program_of(reply) == program


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "value"),
    [
        (ADD, "7"),
        (f"```\n{ADD}```", None),
        ("answer = 'two\\nlines'", "two\nlines"),
        ("answer = 1\nanswer = 2.5", "2.5"),
        (f"{ADD}answer = 1", "7"),
        (f"print('noise')\n{ADD}print('more', end='')", "7"),
        ("answer = 10 ** 400", "1" + "0" * 400),
        ("answer = [1, None]", "[1, None]"),
        ("answer = False", "False"),
        ("answer = 3\n# a comment without a line break", "3"),
    ],
)
def test_values_are_read_back(program, value):
    assert pal.execute(program).value == value


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "error", "kind"),
    [
        ("def solution():\n    x = 1", "ValueError: the program has no answer: no solution()", "ValueError"),
        ("x = 1", "no variable `answer`", "ValueError"),
        ("", "the program has no answer", "ValueError"),
        ("def solution(n):\n    return n", "TypeError: solution() missing 1 required", "TypeError"),
        ("answer = 1 / 0", "ZeroDivisionError: division by zero", "ZeroDivisionError"),
        ("def solution():\n    while True: pass", "killed: more than 1", "killed"),
        ("answer = 'x' * 10 ** 7", "killed: more than 1048576 bytes of output", "killed"),
        ("answer = 3 +", "SyntaxError: invalid syntax", "SyntaxError"),
        ("exit(0)", "SystemExit: 0", "SystemExit"),
        ("import os; os._exit(0)", "ended before its answer was read", "the"),
    ],
)
def test_errors_say_what_happened(program, error, kind):
    executed = pal.execute(program, limits=Limits(cpu=1))
    assert executed.value is None and error in executed.error and executed.program == program
    assert programs.kind(executed.error) == kind


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("3.0", "3"),
        ("3", "3"),
        ("-0.0", "0"),
        ("0.30000000000000004", "0.3"),
        ("1e3", "1000"),
        ("12345678901234567891", "12345678901234567891"),
        ("1" + "0" * 400, "1" + "0" * 400),
        ("nan", "nan"),
        (" Louis\n", "Louis"),
    ],
)
def test_numbers_have_one_way_of_writing(value, written):
    assert pal.canonical(value) == written


def test_numbers_are_compared_with_a_tolerance():
    assert pal.same("33.3333333", 33.3333) and pal.same("123456789.0", "123456788") and pal.same("7", 7.0)
    assert not pal.same("33.34", 33.33) and not pal.same("1000.0", "1002") and not pal.same("none", 3.0)
    assert pal.same(" Bernard ", "bernard") and not pal.same("Bernard", "Louis")


@needs_sandbox
def test_most_of_several_programs_decide():
    texts = [ADD, "answer = 7.0", "answer = 8", "answer = 1 / 0", "answer = 0.1 + 0.2", "answer = 1", "x = 1", "x = 2"]
    model = Scripted(texts)
    first, second = pal.solve(model, ["a?", "b?"], samples=4, options=Options(temperature=0.7))
    assert [prompt for prompt, _ in model.asked] == [pal.prompt("a?")] * 4 + [pal.prompt("b?")] * 4
    assert (first.vote.answer, first.vote.agreement, first.vote.tied) == ("7", 0.5, ())
    assert [one.value for one in first.executed] == ["7", "7.0", "8", None]
    assert "ZeroDivisionError" in first.executed[3].error
    assert (second.vote.answer, second.vote.tied) == ("0.3", ("0.3", "1"))


@needs_sandbox
def test_examples_that_find_no_room_are_left_out():
    examples = [(f"How many are {i} and {i}?", f"def solution():\n    return {i + i}") for i in range(5)]
    room = len(pal.prompt("What?", examples[2:])) + 512
    model = Scripted(lambda prompt: ADD, window=room)
    [solution] = pal.solve(model, ["What?"], examples)
    assert solution.prompt == pal.prompt("What?", examples[2:]) and solution.vote.answer == "7"


@needs_sandbox
def test_published_programs_give_their_targets(data_dir):
    cases = list(islice(programs.gsm_hard(data_dir), 200, 240))
    executed = pal.execute_all([case.program for case in cases])
    assert all(case.right(one.value) for case, one in zip(cases, executed, strict=True))
    assert not cases[0].right(executed[1].value)


@pytest.mark.parametrize(
    ("value", "choice"),
    [("36", "(a)"), ("36.2", "(a)"), ("-5", "(d)"), ("0.59", "(c)"), ("1200.0", "(b)"), ("many", None)],
)
def test_the_nearest_choice_is_taken(value, choice):
    question = "Which?Answer Choices:(a) $36(b) 1,250 km(c) 3/5(d) 0.1(e) None of these\n\n# solution using Python:\n"
    assert programs.nearest(value, question) == choice
    assert programs.nearest(value, "Which?") is None


@needs_sandbox
def test_the_table_of_programs(data_dir, tmp_path):
    console = Console(file=io.StringIO(), width=160)
    programs.work(get_config("tiny").to_dict() | {"data": str(data_dir)}, tmp_path, console)
    found = {row["set"]: row for row in json.loads((tmp_path / "results.json").read_text())["sets"]}
    assert found["gsm_hard"]["met"] == found["humaneval"]["met"] == 20
    # A model wrote these: they run, and a part is right.
    assert 0 < found["aqua"]["met"] < 20 and sum(found["aqua"]["errors"].values()) < 5
    assert "targets met" in console.file.getvalue()
