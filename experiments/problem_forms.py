"""Three ways to answer a word problem: at once, behind a chain of thought, by a program that a sandbox runs."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count

from experiments.reasoners import Lesson
from research.apps import pal
from research.apps.prompting.extract import extract
from research.apps.protocol import LanguageModel, Options
from research.apps.reasoning import Vote, self_consistency, vote
from research.data.word_problems import Difficulty, Problem, word_problem

_RULE = "answer_is"


def _question(problem: Problem) -> str:
    return f"Q: {problem.question}\nA:"


PROBLEM_FORMS: dict[str, Callable[[Problem], Lesson]] = {
    "direct": lambda problem: (_question(problem), f" The answer is {problem.answer}."),
    "chain of thought": lambda problem: (_question(problem), f" {problem.thoughts}"),
    "program": lambda problem: (pal.prompt(problem.question), problem.program),
}


def problem_lessons(form: str, difficulty: Difficulty, seed: int) -> Iterator[Lesson]:
    """Lessons without end, none of a held-out problem."""
    return (PROBLEM_FORMS[form](word_problem(seed, index, difficulty)) for index in count())


def answers(
    model: LanguageModel, form: str, problems: Sequence[Problem], options: Options, samples: int, level: str
) -> list[tuple[Vote, list[str | None]]]:
    """Of each problem the answers of all samples, and what most of them say."""
    if form == "program":
        questions = [problem.question for problem in problems]
        solved = pal.solve(model, questions, samples=samples, options=options, level=level)
        return [(s.vote, [None if e.value is None else pal.canonical(e.value) for e in s.executed]) for s in solved]
    prompts = [_question(problem) for problem in problems]
    if options.temperature > 0:
        voted = self_consistency(model, prompts, _RULE, options, samples=samples)
        return [(most, [chain.answer for chain in chains]) for most, chains in voted]
    found = [extract(_RULE, reply.text) for reply in model.write(prompts, options)]
    return [(vote([answer]), [answer]) for answer in found]
