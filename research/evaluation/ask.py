"""A task's prompts put to a model: choices compared by likelihood, answers written and read, as `Outcome`s.

Callers ask `portions` one after the other and store what came back, so that a kill costs one portion.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.apps.prompting import Item, Outcome, Task
from research.apps.prompting.extract import extract
from research.core.types import Params
from research.decoding import Sampling, generate
from research.decoding.prompts import context, has_encoder
from research.decoding.reading import encode_prompt
from research.models import Model
from research.weights.prompts import virtual_ids

from .judge.ask import NoAnswer
from .likelihood import score_choices


class Asked(NamedTuple):
    """One item with the whole text that a model is shown for it."""

    item: Item
    prompt: str


def portions(asked: Sequence[Asked], size: int) -> Iterator[list[Asked]]:
    """All of them in lists of `size`, longest first: little padding, and what is too large for memory fails at once."""
    if size < 1:
        raise ValueError(f"a portion holds at least 1 question, given {size}")
    order = sorted(asked, key=lambda one: -len(one.prompt))
    yield from (order[i : i + size] for i in range(0, len(order), size))


def choose(
    model: Model,
    params: Params,
    tokenizer: Any,
    task: Task,
    asked: Sequence[Asked],
    *,
    long: str = "error",
    batch_size: int = 16,
) -> list[Outcome]:
    """The likeliest choice of each item, compared as `task.by` says; equal texts are read once.

    A soft prompt in the weights stands in front. An item of which a choice would begin inside a token has all its
    choices encoded apart from the prompt. long: see `likelihood.score_pairs`.

    Raises:
      ValueError: an item without choices, or a question too long for the model; names the item.
    """
    bare = [one.item.id for one in asked if not one.item.choices]
    if bare:
        raise ValueError(f"{task.name}: item {bare[0]!r} has no choices to compare; let its answer be written")
    options: dict[str, Any] = {"by": task.by, "neutral": task.neutral, "long": long, "batch_size": batch_size}
    options["virtual"] = virtual_ids(params)
    kinds: dict[str, list[Asked]] = {"joint": [], "separate": []}
    for one in asked:
        kinds["joint" if has_encoder(model) or _whole_tokens(tokenizer, task, one) else "separate"].append(one)
    found: dict[int, np.ndarray] = {}
    for boundary, some in kinds.items():
        questions = [(prompt, item.choices) for item, prompt in some]
        if some:
            scores = score_choices(model, params, tokenizer, questions, boundary=boundary, **options)
            found |= zip((id(one) for one in some), scores, strict=True)
    scores = [found[id(one)] for one in asked]
    return [
        Outcome(one.item.id, int(np.argmax(values)), scores=tuple(map(float, values)))
        for one, values in zip(asked, scores, strict=True)
    ]


def write(
    model: Model,
    params: Params,
    tokenizer: Any,
    task: Task,
    asked: Sequence[Asked],
    *,
    sampling: Sampling | None = None,
    stop_tokens: Sequence[int] | None = None,
    key: int = 0,
    long: str = "error",
    batch_size: int = 16,
) -> list[Outcome]:
    """What the model writes after each prompt, up to the task's stop strings, and the answer that is read in it.

    Greedy unless `sampling` says otherwise; the noise of an item depends on `key` and its id, not on its portion. Equal
    prompts are answered once where nothing is drawn.

    stop_tokens: default the tokenizer's end token. long: "error", or "cut": a prompt loses its oldest tokens.

    Raises:
      ValueError: a prompt that leaves no room for `task.max_new_tokens`; names the item.
    """
    if long not in ("error", "cut"):
        raise ValueError(f"unknown long={long!r}; have ['cut', 'error']")
    sampling = sampling or Sampling()
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    drawn = sampling.temperature != 0
    rows = {(item.id if drawn else "", prompt): (item, prompt) for item, prompt in asked}
    ids = [_prompt_ids(model, params, tokenizer, task, item, prompt, long) for item, prompt in rows.values()]
    seeds = [zlib.crc32(item.id.encode()) for item, _ in rows.values()]
    texts: list[str] = []
    for first in range(0, len(ids), batch_size):
        some = slice(first, first + batch_size)
        missing = batch_size - len(ids[some])  # full batches only: one shape
        out = generate(
            model,
            params,
            [*ids[some], *[ids[0]] * missing],
            max_new_tokens=task.max_new_tokens,
            sampling=sampling,
            stop_tokens=end if stop_tokens is None else stop_tokens,
            stop_strings=task.stop,
            tokenizer=tokenizer,
            key=key,
            seeds=[*seeds[some], *[0] * missing],
            logprobs=False,
        )
        texts += (out.texts or [])[: len(ids[some])]
    found = dict(zip(rows, texts, strict=True))
    return [read(task, item, found[item.id if drawn else "", prompt]) for item, prompt in asked]


def write_by(answer: Callable[[list[str]], Sequence[str]], task: Task, asked: Sequence[Asked]) -> list[Outcome]:
    """The same from any callable of prompts, such as `judge.Address`; equal prompts are asked once.

    The stop strings are looked for in what comes back.

    Raises:
      ValueError: not one text per prompt. ConnectionError: an answer that never came, with the reason.
    """
    prompts = list(dict.fromkeys(prompt for _, prompt in asked))
    try:
        texts = texts_by(answer, prompts) if prompts else []
    except ConnectionError as error:
        raise ConnectionError(f"{task.name}: {error}") from None
    found = {prompt: _before(text, task.stop) for prompt, text in zip(prompts, texts, strict=True)}
    return [read(task, item, found[prompt]) for item, prompt in asked]


def texts_by(answer: Callable[[list[str]], Sequence[str]], prompts: list[str]) -> list[str]:
    """What a callable such as `judge.Address` writes to each prompt; `partial(texts_by, address)` fails where it does.

    Raises:
      ValueError: not one text per prompt. ConnectionError: an answer that never came, with the reason.
    """
    texts = list(answer(prompts))
    strange = [type(text).__name__ for text in texts if not isinstance(text, str)]
    if len(texts) != len(prompts) or strange:
        got = f"{len(texts)} answers{', among them ' + strange[0] if strange else ''}"
        raise ValueError(f"a model gives one text per prompt; asked {len(prompts)} prompts, it gave {got}")
    lost = [text for text in texts if isinstance(text, NoAnswer)]
    if lost:  # not an empty answer: asked again, it may come
        raise ConnectionError(f"{len(lost)} of {len(prompts)} prompts got no answer; the first: {lost[0]}")
    return texts


def read(task: Task, item: Item, text: str) -> Outcome:
    """The outcome of a text that a model wrote."""
    return Outcome(item.id, extract(task.extract, text), text=text)


def count(model: Model, params: Params, tokenizer: Any) -> tuple[Callable[[str], int], int]:
    """(text -> its tokens as a prompt, how many the model holds), which `shots.build` fits prompts by.

    An encoder's window is the prompt's alone, but the answer is counted in it all the same.
    """
    room = (context(model) or model.config.max_length) - len(virtual_ids(params))
    return lambda text: len(encode_prompt(model, tokenizer, text)), room


def _prompt_ids(
    model: Model, params: Params, tokenizer: Any, task: Task, item: Item, prompt: str, long: str
) -> list[int]:
    ids = encode_prompt(model, tokenizer, prompt)
    limit = context(model)
    if limit is None:
        return ids
    answer = 0 if has_encoder(model) else task.max_new_tokens - 1  # the last new token is never read
    room = limit - len(virtual_ids(params)) - answer
    if len(ids) > room and (long == "error" or room < 1):
        raise ValueError(
            f"{task.name}: item {item.id!r} has a prompt of {len(ids)} tokens; beside {task.max_new_tokens} new ones "
            f"the model takes {max(room, 0)}: fewer examples, or long='cut'"
        )
    return ids[-room:]


def _whole_tokens(tokenizer: Any, task: Task, one: Asked) -> bool:
    """Whether the tokens of what stands in front are the first ones of front and choice, for every choice."""
    fronts = [one.prompt, *[task.neutral] * (task.by == "unconditional")]
    for front in fronts:
        head = tokenizer.encode(front.rstrip())
        if any(tokenizer.encode(front + choice)[: len(head)] != head for choice in one.item.choices):
            return False
    return True


def _before(text: str, stops: Sequence[str]) -> str:
    return text[: min((at for at in map(text.find, stops) if at >= 0), default=len(text))]
