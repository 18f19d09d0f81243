"""Chain of thought: a model writes how it comes to its answer, before it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from .prompting import Item, Task, build, choose
from .prompting.extract import extract
from .protocol import LanguageModel, Options

TRIGGER = "Let's think step by step."
ASK_NUMBER = "Therefore, the answer (arabic numerals) is"
THOUGHTS = Options(max_new_tokens=128)


class Chain(NamedTuple):
    """What was shown, what the model wrote, and the answer found in it; None: there is none."""

    prompt: str
    text: str
    answer: str | None


class Vote(NamedTuple):
    """What most of several answers say.

    Attributes:
      answer: the most frequent one, of equals the first that was given; None: none could be read.
      agreement: its share of all answers, those that could not be read among them.
      tied: all of the most frequent ones where they are several; else empty.
    """

    answer: str | None
    agreement: float
    tied: tuple[str, ...]


def zero_shot(
    model: LanguageModel,
    questions: Sequence[str],
    *,
    trigger: str = TRIGGER,
    ask: str = ASK_NUMBER,
    rule: str = "kojima_number",
    options: Options = THOUGHTS,
    answer_tokens: int = 32,
) -> list[Chain]:
    """Zero-shot chain of thought: the model is asked to think, then, after its thoughts, for the answer.

    See *Large Language Models are Zero-Shot Reasoners*, Kojima et al., https://arxiv.org/abs/2205.11916.

    trigger: "" asks at once, which is what the paper compares with. rule: of `prompting.extract`.
    """
    prompts = [f"Q: {question}\nA:" for question in questions]
    asks = [f"{prompt} {ask}" for prompt in prompts]
    if trigger:
        prompts = [f"{prompt} {trigger}" for prompt in prompts]
        thoughts = [reply.text for reply in model.write(prompts, options)]
        asks = [f"{prompt}{thought} \n{ask}" for prompt, thought in zip(prompts, thoughts, strict=True)]
    answers = [reply.text for reply in model.write(asks, replace(options, max_new_tokens=answer_tokens))]
    return [
        Chain(prompt, asked[len(prompt) :] + answer, extract(rule, answer))
        for prompt, asked, answer in zip(prompts, asks, answers, strict=True)
    ]


def few_shot(
    model: LanguageModel, task: Task, items: Sequence[Item], k: int, *, seed: int = 0, how: str = "random"
) -> list[Chain]:
    """Chain of thought after k examples (or the task's published ones) whose answers show their steps.

    See *Chain-of-Thought Prompting Elicits Reasoning in Large Language Models*, Wei et al.,
    https://arxiv.org/abs/2201.11903. Examples that the window does not hold are left out, see `prompting.build`.
    """
    count = None if model.window is None else model.count
    shots = [choose(task, item, k, seed=seed, how=how) for item in items]
    prompts = [
        build(task, item, some, count=count, window=model.window).text for item, some in zip(items, shots, strict=True)
    ]
    replies = model.write(prompts, Options(task.max_new_tokens, stop=task.stop))
    return [
        Chain(prompt, reply.text, extract(task.extract, reply.text))
        for prompt, reply in zip(prompts, replies, strict=True)
    ]


def self_consistency(
    model: LanguageModel, prompts: Sequence[str], rule: str, options: Options, *, samples: int = 10
) -> list[tuple[Vote, list[Chain]]]:
    """The vote of several sampled chains for each prompt.

    See *Self-Consistency Improves Chain of Thought Reasoning in Language Models*, Wang et al.,
    https://arxiv.org/abs/2203.11171.

    Raises:
      ValueError: fewer than one sample, or a temperature of 0, at which all are the same.
    """
    if samples < 1 or options.temperature == 0:
        raise ValueError(
            f"self-consistency votes over at least 1 sample drawn at a temperature above 0; "
            f"given {samples}, {options.temperature:g}"
        )
    replies = model.write([prompt for prompt in prompts for _ in range(samples)], options)
    voted = []
    for i, prompt in enumerate(prompts):
        texts = [reply.text for reply in replies[i * samples : (i + 1) * samples]]
        chains = [Chain(prompt, text, extract(rule, text)) for text in texts]
        voted.append((vote([chain.answer for chain in chains]), chains))
    return voted


def vote(answers: Sequence[str | None]) -> Vote:
    """The majority of some answers; None is no answer and gets no vote.

    Raises:
      ValueError: no answers at all.
    """
    if not answers:
        raise ValueError("a vote needs at least one answer")
    counts = Counter(answer for answer in answers if answer is not None).most_common()  # equals: first come, first
    if not counts:
        return Vote(None, 0.0, ())
    best, most = counts[0]
    tied = tuple(answer for answer, count in counts if count == most)
    return Vote(best, most / len(answers), tied if len(tied) > 1 else ())
