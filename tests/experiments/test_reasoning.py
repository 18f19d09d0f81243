"""Lessons are what the applications ask and read; the grid in its smallest form; its tables and figures."""

import io

import pytest
from rich.console import Console

from configs.lifecycle import get_config as lifecycle
from configs.reasoning import get_config
from experiments import fact_forms, problem_forms, reasoning
from experiments.fact_forms import FACT_FORMS, Library, fact_lessons, grouped
from experiments.problem_forms import PROBLEM_FORMS, problem_lessons
from experiments.stages import reasoning as stage
from research.apps import sandbox
from research.apps.protocol import Options
from research.data.changing_facts import editions
from research.data.word_problems import Difficulty, word_problem
from tests.apps.scripted import Scripted

EASY = Difficulty((1, 4), (1, 20), 99, 0.3)
confined = pytest.mark.skipif(sandbox.isolation().level == "unsafe", reason=f"no sandbox: {sandbox.isolation().reason}")


@pytest.mark.parametrize("form", ["direct", "chain of thought", pytest.param("program", marks=confined)])
def test_who_has_learned_the_lessons_solves_the_problems(form):
    problems = [word_problem(5, i, EASY) for i in range(8)]
    model = Scripted(dict(map(PROBLEM_FORMS[form], problems)).__getitem__, window=4000)
    found = problem_forms.answers(model, form, problems, Options(500), 1, "bubblewrap")
    assert [most.answer for most, _ in found] == [str(problem.answer) for problem in problems]
    drawn = problem_forms.answers(model, form, problems[:2], Options(500, temperature=1.0), 3, "bubblewrap")
    assert [(most.answer, most.agreement, len(each)) for most, each in drawn] == [
        (str(problem.answer), 1.0, 3) for problem in problems[:2]
    ]


@pytest.mark.parametrize("form", FACT_FORMS)
def test_who_has_learned_the_lessons_finds_the_facts(form):
    library = Library(editions(2, 1, people=20, newcomers=0, changed=0.0)[0])
    asked = library.questions[::7]
    learned = dict(lesson for q in asked for lesson in fact_forms.lessons_of(form, library, q, 3))
    model = Scripted(learned.__getitem__)
    assert fact_forms.answers(model, form, library, asked, 3, 200) == [q.answer for q in asked]
    if form == "ReAct":
        traces = fact_forms.look_up(model, library, asked, 200)
        assert all(trace.ended == "finish" for trace in traces) and not any(s.notes for t in traces for s in t.steps)
        assert [[s.argument for s in t.steps[:-1]] for t in traces] == [list(q.titles) for q in asked]


def test_the_passages_of_one_look_hold_its_answer_and_those_of_two_looks_seldom_do():
    library = Library(editions(0, 1, people=200, newcomers=0, changed=0.0)[0])
    held = {1: [], 2: []}
    for question in library.questions:
        held[len(question.titles)].append(question.found[-1] in fact_forms.with_passages(library, question, 3))
    assert sum(held[1]) / len(held[1]) > 0.95 and sum(held[2]) / len(held[2]) < 0.4


def test_groups_say_what_became_of_an_answer():
    before, after = (Library(edition) for edition in editions(0, 2, people=50, newcomers=10, changed=0.5))
    groups = grouped(before, after, 1000)
    assert len(groups) == 6 and sum(map(len, groups.values())) == len(after.questions)
    known = {q.text: q.answer for q in before.questions}
    for name, questions in groups.items():
        fates = {"new": lambda q: q.text not in known, "changed": lambda q: known[q.text] != q.answer}
        fate = fates.get(name.split(",")[0], lambda q: known[q.text] == q.answer)
        assert all(map(fate, questions)) and len({len(q.titles) for q in questions}) == 1


def test_lessons_differ_by_seed_and_the_closed_book_is_of_the_last_edition():
    def first(seed):
        lessons = problem_lessons("direct", EASY, seed)
        return [next(lessons) for _ in range(10)]

    assert first(0) == first(0) != first(1)
    libraries = [Library(edition) for edition in editions(0, 3, people=5, newcomers=0, changed=1.0)]
    closed, rag = (fact_lessons(form, libraries, 2, 0) for form in ("closed book", "RAG"))
    last = {(fact_forms.closed_book(q), f" {q.answer}") for q in libraries[-1].questions}
    assert {next(closed) for _ in range(60)} <= last
    assert not {(p.split("\n\n")[-1], a) for p, a in (next(rag) for _ in range(60))} <= last


def test_the_grid_in_its_smallest_form(tmp_path):
    config, out = get_config("tiny").to_dict(), io.StringIO()
    config["problems"]["forms"], config["facts"]["forms"] = ("chain of thought",), ("closed book",)
    config["problems"]["tests"].pop("larger numbers")
    reasoning.work(config, tmp_path, Console(file=out, width=250))
    assert len(list(tmp_path.glob("*.json"))) == 2
    for world in ("problems", "facts"):
        assert (tmp_path / f"reasoning_{world}.png").stat().st_size > 1000
    told = out.getvalue()
    assert "chain of thought, vote" in told and "changed, two looks" in told and "more steps" in told
    reasoning.work(config, tmp_path, Console(file=io.StringIO()))  # remembered: nothing is trained again


@pytest.mark.parametrize(
    "change, message",
    [
        ({"worlds": ("problem",)}, "unknown world 'problem'.* did you mean 'problems'"),
        ({"problems": {"forms": ("programs",)}}, "problems: unknown form 'programs'.* did you mean 'program'"),
        ({"facts": {"forms": ("RAGE",)}}, "facts: unknown form 'RAGE'"),
    ],
)
def test_what_does_not_exist_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        reasoning.check(get_config("tiny").to_dict() | change)


def test_the_stage_of_the_main_job_is_left_out_where_there_is_no_sandbox(monkeypatch, tmp_path):
    def refuse(program, *, level):
        raise sandbox.NoSandboxError(f"programs are to run at least at level {level!r}; this machine gives less")

    monkeypatch.setattr(sandbox, "run", refuse)
    found = stage.run({"reasoning": {"sandbox": "namespaces"}}, {}, tmp_path)
    assert found == {"skipped": "programs are to run at least at level 'namespaces'; this machine gives less"}
    assert stage.rows(found)[1] == [[found["skipped"]]]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"questions": 5}, "at least 6 questions, one of each kind, and 2 editions, given 5 and 5"),
        ({"sandbox": "namespace"}, "unknown level 'namespace'.* did you mean 'namespaces'"),
        ({"problems": {"steps": (0, 4), "numbers": (1, 20), "most": 99}}, "steps from 1 to 10"),
    ],
)
def test_the_stage_refuses_its_settings_before_any_work(change, message):
    settings = lifecycle("tiny").to_dict()["reasoning"]
    stage.check(settings)
    with pytest.raises(ValueError, match=message):
        stage.check(settings | change)
