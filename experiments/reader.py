"""Questions about documented functions, answered from passages: by their first line, or by a decoder tuned to cite."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.apps.protocol import LanguageModel, Options
from research.apps.retrieval.document import Chunk
from research.apps.retrieval.prompt import (
    INSTRUCTION,
    NOT_FOUND,
    Answer,
    assemble,
    citation_precision,
    read_answer,
)
from research.apps.retrieval.retriever import Retriever
from research.apps.retrieval.store import Hit
from research.data import python_docs
from research.data.instructions import summary_and_body
from research.evaluation.judge import Form, Judge, rate
from research.evaluation.squad import normalized, squad
from research.evaluation.text_metrics import Interval, bootstrap

Answering = Callable[[Sequence[str]], list[Answer]]
"""Questions -> answers."""

LONGEST = 120  # characters of an answer
# What the documents do not hold.
OUTSIDE = (
    "Who painted the ceiling of the Sistine Chapel?",
    "What is the boiling point of ethanol at sea level?",
    "Which river flows through the city of Vienna?",
    "How many players does a cricket team have on the field?",
    "When did the Berlin Wall fall?",
    "What is the largest organ of the human body?",
    "Which spice gives paella its yellow colour?",
    "Who wrote the opera The Magic Flute?",
    "How far is the Moon from the Earth?",
    "What do bees collect from flowers?",
)
FAITHFUL = Form(
    "faithfulness",
    "single",
    "Passages:\n{passages}\n\nQuestion: {question}\nAnswer: {answer}\n\nDo the passages support every statement of the "
    "answer? Explain briefly, then rate from 1 (none) to 10 (all) in this form: [[rating]], such as [[5]].",
)


class Question(NamedTuple):
    """What is asked about a function, and the sentence that answers it as the documents have it."""

    text: str
    answer: str
    function: str

    def supported_by(self, chunk: Chunk) -> bool:
        return self.answer in " ".join(chunk.text.split())


def questions(chunks: Sequence[Chunk], seed: int) -> list[Question]:
    """One about every function whose first line some chunk holds, in random order; equal answers are asked for once."""
    text = "\n".join(" ".join(chunk.text.split()) for chunk in chunks)
    found: dict[str, Question] = {}
    for function in python_docs.functions():
        summary = summary_and_body(function.docstring)[0]
        if 10 < len(summary) <= LONGEST and f"{function.key}(" in text and summary in text:
            found.setdefault(summary, Question(f"What does {function.key} do?", summary, function.key))
    asked = list(found.values())
    return [asked[i] for i in np.random.default_rng(seed).permutation(len(asked))]


def examples(
    asked: Sequence[Question], retriever: Retriever, model: LanguageModel, k: int, answer_tokens: int, instruction: str
) -> list[dict[str, str]]:
    """Prompts as `by_model` makes them; the right answer with its citation, or `NOT_FOUND` where no passage has it."""
    made = []
    for question in asked:
        hits = retriever(question.text, k)
        prompt, passages, _ = assemble(question.text, hits, model, answer_tokens=answer_tokens, instruction=instruction)
        places = [i for i, hit in enumerate(passages, start=1) if question.supported_by(hit.chunk)]
        assert isinstance(prompt, str)
        right = f"{question.answer} [{places[0]}]" if places else NOT_FOUND
        made.append({"prompt": prompt, "completion": right})
    return made


def first_line(hits: Sequence[Hit]) -> Answer:
    """The best passage's first line below its heading, with its citation: what needs no model."""
    if not hits:
        return Answer(NOT_FOUND)
    chunk = hits[0].chunk
    lines = [line.strip() for line in chunk.text.split("\n") if line.strip()]
    below = [line for line in lines if line not in chunk.heading]
    return Answer(f"{(below or lines)[0]} [1]", (hits[0],), (), tuple(hits))


def by_first_line(retriever: Retriever, k: int) -> Answering:
    """What `first_line` says of every question."""
    return lambda asked: [first_line(retriever(question, k)) for question in asked]


def by_model(
    retriever: Retriever | None,
    k: int,
    model: LanguageModel,
    options: Options,
    *,
    instruction: str = INSTRUCTION,
    chat: bool = False,
) -> Answering:
    """What `prompt.answer` says of every question, asked together; without a retriever it answers from memory."""

    def answers(asked: Sequence[str]) -> list[Answer]:
        made = [
            assemble(
                question,
                retriever(question, k) if retriever else (),
                model,
                answer_tokens=options.max_new_tokens,
                instruction=instruction,
                chat=chat,
            )
            for question in asked
        ]
        close = [i for i, one in enumerate(made) if one.passages or not retriever]
        given = [Answer(NOT_FOUND)] * len(made)
        for i, reply in zip(close, model.write([made[i].prompt for i in close], options), strict=True):
            given[i] = read_answer(reply.text, made[i])
        return given

    return answers


def scored(asked: Sequence[Question], answers: Sequence[Answer]) -> dict[str, Interval]:
    """Exact match and F1 without the citations, and whether passages, citations and words support what is said.

    `found`: whether a passage shown holds the answer. `citation precision`: the share of cited passages that do.
    `faithful words`: the share of an answer's words that stand in the passages shown (knowledge precision, *Evaluating
    Correctness and Faithfulness of Instruction-Following Models for Question Answering*,
    https://arxiv.org/abs/2307.16877). `answered`: whether it was not said that the documents do not hold it.
    """
    told = [plain(given.text) for given in answers]
    values: dict[str, list[float]] = {"found": [], "citation precision": [], "faithful words": [], "answered": []}
    for question, given, text in zip(asked, answers, told, strict=True):
        support = [i for i, hit in enumerate(given.passages) if question.supported_by(hit.chunk)]
        cited = [given.passages.index(hit) for hit in given.cited] + [-n for n in given.wrong]
        values["found"].append(float(bool(support)))
        values["citation precision"].append(citation_precision(cited, support))
        values["faithful words"].append(faithful_words(text, given.passages))
        values["answered"].append(float(NOT_FOUND not in given.text))
    return {
        **squad(told, [[question.answer] for question in asked]),
        **{k: bootstrap(np.array(v)) for k, v in values.items()},
    }


def plain(text: str) -> str:
    """An answer without its citations."""
    return text.split("\n", 1)[0].split("[", 1)[0].strip()


def faithful_words(text: str, passages: Sequence[Hit]) -> float:
    """The share of a text's words that some passage has; of no words 0."""
    there = {word for hit in passages for word in normalized(hit.chunk.text).split()}
    mine = normalized(text).split()
    return sum(word in there for word in mine) / len(mine) if mine else 0.0


def faithfulness(judge: Judge, asked: Sequence[Question], answers: Sequence[Answer]) -> Interval:
    """A judge's mean rating, 1 to 10, of how far the passages shown support an answer."""
    rows: list[dict[str, Any]] = [
        {
            "question": question.text,
            "answer": given.text,
            "passages": "\n\n".join(f"[{i}] {hit.chunk.text}" for i, hit in enumerate(given.passages, start=1)),
        }
        for question, given in zip(asked, answers, strict=True)
    ]
    return rate(judge, rows, FAITHFUL).mean()


def refused(answers: Sequence[Answer]) -> float:
    """The share of answers that say the documents do not hold it."""
    return float(np.mean([NOT_FOUND in given.text for given in answers]))
