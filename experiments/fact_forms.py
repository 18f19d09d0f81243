"""Three ways to answer questions about a registry: from memory, from passages in the prompt, by looking entries up."""

from collections.abc import Iterator, Sequence
from itertools import count
from types import SimpleNamespace
from typing import cast

import numpy as np

from experiments.reasoners import Lesson
from research.apps import react
from research.apps.protocol import LanguageModel, Options
from research.apps.retrieval.bm25 import BM25
from research.apps.retrieval.document import Chunk
from research.apps.retrieval.prompt import assemble
from research.apps.retrieval.store import Hit
from research.apps.tools import Tools, tool
from research.apps.trace import Budget, Step, Trace
from research.data.changing_facts import Question, Registry

_INSTRUCTION = "Answer from the passages."
_HEAD = "Look up entries, then finish.\n"
_ENDLESS = cast(LanguageModel, SimpleNamespace(name="a lesson", window=None))  # in which nothing is left out

FACT_FORMS = ("closed book", "RAG", "ReAct")


class Library:
    """An edition of the registry with an index of its words."""

    def __init__(self, registry: Registry):
        self.registry, self.questions = registry, registry.questions()
        passages = {title: registry.passage(title) for title in registry.entries}
        self._chunks = [Chunk(text, title, 0, len(text), title=title) for title, text in passages.items()]
        self._index = BM25([chunk.passage for chunk in self._chunks])

    def search(self, question: str, k: int) -> list[Hit]:
        """The k entries with the most of the question's words."""
        scores = self._index.scores(question)
        return [Hit(self._chunks[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:k]]

    def lookup(self, title: str) -> str:
        """The entry of a person or a town.

        Args:
          title: the full name.
        """
        if title not in self.registry.entries:
            raise ValueError(f"no entry {title!r}")
        return self.registry.passage(title)


def grouped(before: Library, after: Library, most: int) -> dict[str, list[Question]]:
    """Questions of each kind, by the looks they take and by what became of their answers since `before`."""
    known = {question.text: question.answer for question in before.questions}
    groups: dict[str, list[Question]] = {}
    for i in np.random.default_rng(0).permutation(len(after.questions)):
        question = after.questions[i]
        fate = {question.answer: "unchanged", None: "new"}.get(known.get(question.text), "changed")
        groups.setdefault(f"{fate}, {('one look', 'two looks')[len(question.titles) - 1]}", []).append(question)
    return {name: groups[name][:most] for name in sorted(groups)}


def closed_book(question: Question) -> str:
    """A prompt with the question alone."""
    return f"Question: {question.text}\nAnswer:"


def with_passages(library: Library, question: Question, k: int, model: LanguageModel = _ENDLESS) -> str:
    """A prompt with the k passages that are found for the question, or as many as fit the model's window."""
    hits = library.search(question.text, k)
    return str(assemble(question.text, hits, model, answer_tokens=16, instruction=_INSTRUCTION).prompt)


def steps_of(library: Library, question: Question) -> list[Lesson]:
    """A run of `research.apps.react` that finds the answer: what it looks up, and what it then knows."""
    thoughts = [f"I look up {question.titles[0]}.", *question.found]
    actions = [*(("Lookup", title) for title in question.titles), (react.FINISH, question.answer)]
    steps: list[Step] = []
    lessons = []
    for n, (thought, (action, argument)) in enumerate(zip(thoughts, actions, strict=True), start=1):
        prompt = f"{_HEAD}Question: {question.text}\n{react.render(steps)}Thought {n}:"
        lessons.append((prompt, f" {thought}\nAction {n}: {action}[{argument}]"))
        if action != react.FINISH:
            steps.append(Step(thought, action, argument, library.lookup(argument)))
    return lessons


def look_up(model: LanguageModel, library: Library, questions: Sequence[Question], step_tokens: int) -> list[Trace]:
    """Runs of an agent whose only tool is the registry."""
    tools = Tools([tool(library.lookup, "Lookup")])
    asked = [question.text for question in questions]
    budget = Budget(steps=4, step_tokens=step_tokens)
    return react.run_all(model, [tools] * len(asked), asked, head=_HEAD, budget=budget)


def lessons_of(form: str, library: Library, question: Question, passages: int) -> list[Lesson]:
    """What is learned of one question."""
    if form == "ReAct":
        return steps_of(library, question)
    prompt = with_passages(library, question, passages) if form == "RAG" else closed_book(question)
    return [(prompt, f" {question.answer}")]


def fact_lessons(form: str, libraries: Sequence[Library], passages: int, seed: int) -> Iterator[Lesson]:
    """Lessons without end: of the last library for the closed book, else of any, so that reading is what helps."""
    for index in count():
        generator = np.random.default_rng([seed, index])
        library = libraries[-1 if form == "closed book" else int(generator.integers(len(libraries)))]
        question = library.questions[int(generator.integers(len(library.questions)))]
        yield from lessons_of(form, library, question, passages)


def answers(
    model: LanguageModel, form: str, library: Library, questions: Sequence[Question], passages: int, new_tokens: int
) -> list[str | None]:
    """What the model answers; None where a run did not finish."""
    if form == "ReAct":
        return [trace.answer for trace in look_up(model, library, questions, new_tokens)]
    prompts = [
        with_passages(library, question, passages, model) if form == "RAG" else closed_book(question)
        for question in questions
    ]
    return [reply.text.strip() for reply in model.write(prompts, Options(new_tokens))]
