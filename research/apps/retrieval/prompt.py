"""Questions with numbered passages in front of them, and the citations of answers to such."""

import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from research.apps.protocol import LanguageModel, Message, Options, Prompt

from .store import Hit, Where

NOT_FOUND = "not in the documents"
INSTRUCTION = (
    "Answer the question from the numbered passages alone. After each statement name the passages that support it, "
    f'such as [1] or [2, 3]. If they do not hold the answer, write "{NOT_FOUND}".'
)

Retrieve = Callable[[str, int, Where | None], Sequence[Hit]]
"""(question, k, filter) -> the best chunks, such as a `Retriever` finds."""

_CITED = re.compile(r"\[(\d+(?:\s*,\s*\d+)*)\]")


class Assembled(NamedTuple):
    """A prompt, the passages in it (the first is [1]), and how many less relevant ones did not fit."""

    prompt: Prompt
    passages: tuple[Hit, ...]
    dropped: int


class Answer(NamedTuple):
    """What was answered.

    Attributes:
      cited: the passages that the text names. wrong: numbers in it that no passage has.
      passages: what the model was shown. dropped: how many more were found and did not fit.
    """

    text: str
    cited: tuple[Hit, ...] = ()
    wrong: tuple[int, ...] = ()
    passages: tuple[Hit, ...] = ()
    dropped: int = 0


def assemble(
    question: str,
    hits: Sequence[Hit],
    model: LanguageModel,
    *,
    answer_tokens: int = 256,
    instruction: str = INSTRUCTION,
    chat: bool = False,
) -> Assembled:
    """A prompt with as many of the passages, the best first, as leave `answer_tokens` of the model's window.

    chat: one message of the user instead of a text to continue.

    Raises:
      ValueError: not even the best passage fits.
    """

    def prompt(shown: int) -> Prompt:
        passages = [f"[{i}] {_label(hit)}\n{hit.chunk.text}" for i, hit in enumerate(hits[:shown], start=1)]
        text = "\n\n".join([instruction, *passages, f"Question: {question}"])
        message: Message = {"role": "user", "content": text}
        return [message] if chat else f"{text}\nAnswer:"

    shown = len(hits)
    while model.window is not None and model.count(prompt(shown)) + answer_tokens > model.window:
        shown -= 1
        if shown < min(1, len(hits)):
            raise ValueError(
                f"{model.name} has a window of {model.window} tokens: the question"
                f"{' with its best passage' if hits else ''} takes {model.count(prompt(shown + 1))} "
                f"and the answer {answer_tokens}"
            )
    return Assembled(prompt(shown), tuple(hits[:shown]), len(hits) - shown)


def answer(
    question: str,
    retrieve: Retrieve,
    model: LanguageModel,
    options: Options,
    *,
    k: int = 5,
    where: Where | None = None,
    instruction: str = INSTRUCTION,
    chat: bool = False,
) -> Answer:
    """Retrieves, asks and reads the citations; where nothing is close (`Retriever.least`), nobody is asked."""
    hits = retrieve(question, k, where)
    if not hits:
        return Answer(NOT_FOUND)
    made = assemble(question, hits, model, answer_tokens=options.max_new_tokens, instruction=instruction, chat=chat)
    return read_answer(model.write([made.prompt], options)[0].text, made)


def read_answer(text: str, made: Assembled) -> Answer:
    """What a model wrote to a prompt, with the passages that it cites."""
    text = text.strip()
    numbers = citations(text)
    shown = made.passages
    cited = tuple(shown[n - 1] for n in numbers if 1 <= n <= len(shown))
    return Answer(text, cited, tuple(n for n in numbers if not 1 <= n <= len(shown)), shown, made.dropped)


def citations(text: str) -> list[int]:
    """The numbers in brackets, each once, in the order of the text."""
    return list(dict.fromkeys(int(number) for group in _CITED.findall(text) for number in group.split(",")))


def citation_precision(cited: Collection[int], supporting: Collection[int]) -> float:
    """The share of the cited passages that hold the support; an answer without citations has 0.

    See *Enabling Large Language Models to Generate Text with Citations*, Gao et al., https://arxiv.org/abs/2305.14627,
    whose entailment by a model is here the known places of the support.
    """
    return len(set(cited) & set(supporting)) / len(set(cited)) if cited else 0.0


def _label(hit: Hit) -> str:
    """Title and headings, else where it is from."""
    return " > ".join(part for part in (hit.chunk.title, hit.chunk.heading) if part) or hit.chunk.source
