"""Rows of preferences: both answers to a prompt side by side, [2, T], the chosen one first; only answers are predicted.

Both answers stand behind the same prompt tokens, also where the prompt is cut, and no answer is ever cut: a loss that
compares them compares whole answers to one question.

T length · S source length
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.text import Text

from . import show
from .corruption import pack_pairs
from .packing import Example, Row, pack_row
from .preference import Preference, UnusablePairError, as_preference
from .seq2seq import Pair, cut, encode_pair
from .sources import Rows
from .templates import encode_chat, encode_chat_prompt, encode_completion


class Coded(NamedTuple):
    """Both answers with the prompt in front of them, as token ids and masks; `prompt` counts its tokens."""

    chosen: Example
    rejected: Example
    prompt: int
    preferred: float


class CodedPair(NamedTuple):
    """What the encoder reads and both answers for the decoder, as token ids."""

    inputs: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    preferred: float


def encode_preference(
    preference: Preference, tokenizer: Any, *, template: str | None = None, boundary: str = "joint"
) -> Coded:
    """One preference for a decoder. A chat goes through its template, a text and its answer as in `encode_completion`.

    Raises:
      ValueError: no chat template, or a prompt whose tokens are not those that both answers follow.
    """
    answers = preference.chosen, preference.rejected
    if isinstance(preference.prompt, str):
        both = [encode_completion(preference.prompt, text, tokenizer, boundary=boundary) for text in answers]
        heads = [int(np.argmax(example.loss_mask)) for example in both]
    else:
        head = encode_chat_prompt(preference.prompt, tokenizer, template=template)
        said = [[*preference.prompt, {"role": "assistant", "content": text}] for text in answers]
        whole = [encode_chat(messages, tokenizer, template=template) for messages in said]
        # Of a longer chat only the last turn is what is preferred.
        both = [Example(e.tokens, e.loss_mask & (np.arange(len(e.tokens)) >= len(head))) for e in whole]
        heads = [len(head)] * 2
    first, second = (example.tokens[:n] for example, n in zip(both, heads, strict=True))
    if not np.array_equal(first, second):
        raise ValueError("the answers do not follow the same prompt tokens; use boundary='separate'")
    return Coded(both[0], both[1], heads[0], preference.preferred)


def encode_preferences(
    examples: Iterable[Mapping],
    tokenizer: Any,
    *,
    length: int,
    long: str = "error",
    unusable: str = "error",
    template: str | None = None,
    boundary: str = "joint",
) -> list[Coded]:
    """All examples (`preference.as_preference`) for a decoder; what is wrong with one names its number.

    Args:
      length: the most tokens of a prompt with an answer.
      long: what becomes of longer ones: "error"; "truncate", where the prompt loses its first tokens, but for the begin
        token; "drop".
      unusable: what becomes of pairs of equal answers, with an empty one, or of different prompts: "error" or "drop".

    Raises:
      ValueError: also where an answer alone is too long to be truncated for; counts such examples.
    """
    coded = _encoded(
        examples, lambda p: encode_preference(p, tokenizer, template=template, boundary=boundary), unusable
    )
    _require_choice("long", long, ("error", "truncate", "drop"))
    size = lambda c: max(len(c.chosen.tokens), len(c.rejected.tokens))  # noqa: E731
    if long == "drop":
        return _kept(coded, [size(c) <= length for c in coded], f"{length} tokens")
    too_long = sum(size(c) > length for c in coded)
    if long == "error" and too_long:
        raise ValueError(
            f"{too_long} of {len(coded)} pairs exceed {length} tokens (the longest has {max(map(size, coded))}); "
            "choose long='truncate' or 'drop', or a larger length"
        )
    answers = [size(c) - c.prompt for c in coded]
    if lost := sum(n >= length for n in answers):
        raise ValueError(
            f"{lost} of {len(coded)} pairs have an answer of {length} tokens or more (the longest has {max(answers)}), "
            "which leaves no room for a prompt; choose long='drop' or a larger length"
        )
    return [_truncated(c, length - n, tokenizer.bos_id) for c, n in zip(coded, answers, strict=True)]


def encode_preference_pairs(
    examples: Iterable[Mapping],
    tokenizer: Any,
    *,
    inputs_length: int,
    targets_length: int,
    long: str = "error",
    unusable: str = "error",
) -> list[CodedPair]:
    """All examples for an encoder-decoder, which reads the prompt and answers; see `encode_preferences`.

    long: "truncate" cuts prompts as `seq2seq.encode_pairs` does; an answer over its length is an error all the same.
    """

    def encode(preference: Preference) -> CodedPair:
        chosen, rejected = (_seq2seq(preference.prompt, text, tokenizer) for text in preference[1:3])
        return CodedPair(chosen.inputs, chosen.targets, rejected.targets, preference.preferred)

    coded = _encoded(examples, encode, unusable)
    _require_choice("long", long, ("error", "truncate", "drop"))
    answers = [max(len(c.chosen), len(c.rejected)) for c in coded]
    reads = [len(c.inputs) for c in coded]
    if long == "drop":
        fits = [a <= targets_length and r <= inputs_length for a, r in zip(answers, reads, strict=True)]
        return _kept(coded, fits, f"{inputs_length} input or {targets_length} target tokens")
    wide = sum(r > inputs_length for r in reads) if long == "error" else 0
    if wide or max(answers) > targets_length:
        raise ValueError(
            f"of {len(coded)} pairs {wide} exceed {inputs_length} input tokens and "
            f"{sum(a > targets_length for a in answers)} exceed {targets_length} target tokens (the longest have "
            f"{max(reads)} and {max(answers)}); choose long='drop', or 'truncate' for prompts, or larger lengths"
        )
    return [c._replace(inputs=np.array(cut(c.inputs, inputs_length), np.int32)) for c in coded]


class PreferenceRows:
    """Rows of one preference each, [2, T] and padded on the right, with `preferred` []."""

    def __init__(self, coded: Sequence[Coded], length: int, *, pad_id: int = 0) -> None:
        self._coded, self._length, self._pad_id = coded, length, pad_id

    def __len__(self) -> int:
        return len(self._coded)

    def row(self, index: int, rng: np.random.Generator | None = None) -> Row:
        del rng
        one = self._coded[index]
        rows = [pack_row([answer], self._length, self._pad_id) for answer in (one.chosen, one.rejected)]
        return _side_by_side(rows, one.preferred)


class PreferencePairRows:
    """The same for an encoder-decoder: `inputs` [2, S] hold the prompt twice."""

    def __init__(
        self,
        coded: Sequence[CodedPair],
        inputs_length: int,
        targets_length: int,
        *,
        decoder_start_id: int,
        pad_id: int = 0,
    ) -> None:
        self._coded, self._shape = coded, (inputs_length, targets_length)
        self._ids = {"decoder_start_id": decoder_start_id, "pad_id": pad_id}

    def __len__(self) -> int:
        return len(self._coded)

    def row(self, index: int, rng: np.random.Generator | None = None) -> Row:
        del rng
        one = self._coded[index]
        rows = [pack_pairs([(one.inputs, answer)], *self._shape, **self._ids) for answer in (one.chosen, one.rejected)]
        return _side_by_side(rows, one.preferred)


class WithReference:
    """Rows with `reference` [2] in each: what the reference gives both answers, computed once (`recipes.dpo`).

    Raises:
      ValueError: log-probabilities of other rows.
    """

    def __init__(self, rows: Rows, logprobs: np.ndarray) -> None:
        if np.shape(logprobs) != (len(rows), 2):
            raise ValueError(f"{len(rows)} rows need log-probabilities [{len(rows)}, 2], given {np.shape(logprobs)}")
        self._rows, self._logprobs = rows, np.asarray(logprobs, np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int, rng: np.random.Generator) -> Row:
        return self._rows.row(index, rng) | {"reference": self._logprobs[index]}


def render(batch: Mapping[str, np.ndarray], tokenizer: Any, *, pairs: int = 2, max_tokens: int = 400) -> Text:
    """The first pairs of a batch as `show.render` has them: what is compared is bold, the prompt is dim."""
    text = Text()
    tokens = {name: array for name, array in batch.items() if np.ndim(array) == 3}
    for p in range(min(pairs, len(batch["tokens"]))):
        sure = float(batch["preferred"][p]) if "preferred" in batch else 1.0
        for i, name in enumerate(("chosen", "rejected")):
            text.append(f"pair {p}, {name} ({sure if i == 0 else 1 - sure:.2f}): ", style="bold")
            text.append(show.render({k: v[p, i : i + 1] for k, v in tokens.items()}, tokenizer, max_tokens=max_tokens))
    return text


def _encoded(examples: Iterable[Mapping], encode: Callable[[Preference], Any], unusable: str) -> list[Any]:
    _require_choice("unusable", unusable, ("error", "drop"))
    coded, given = [], 0
    for number, example in enumerate(examples):
        given += 1
        try:
            coded.append(encode(as_preference(example)))
        except ValueError as error:
            if not (unusable == "drop" and isinstance(error, UnusablePairError)):
                raise ValueError(f"example {number}: {error}") from None
    if not coded:
        raise ValueError(f"no pair is left of {given} examples" if given else "no examples were given")
    return coded


def _seq2seq(prompt: Any, answer: str, tokenizer: Any) -> Pair:
    if isinstance(prompt, str):
        return encode_pair({"prompt": prompt, "completion": answer}, tokenizer)
    return encode_pair({"messages": [*prompt, {"role": "assistant", "content": answer}]}, tokenizer)


def _truncated(coded: Coded, room: int, bos_id: int | None) -> Coded:
    """The same with at most `room` tokens of the prompt, its last ones, behind the begin token if it has one."""
    if coded.prompt <= room:
        return coded
    begin = int(bos_id is not None and coded.chosen.tokens[0] == bos_id)
    kept = np.r_[:begin, coded.prompt - room + begin : coded.prompt]
    chosen, rejected = (
        Example(*(np.concatenate([x[kept], x[coded.prompt :]]) for x in example))
        for example in (coded.chosen, coded.rejected)
    )
    return Coded(chosen, rejected, room, coded.preferred)


def _side_by_side(rows: Sequence[Row], preferred: float) -> Row:
    both = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return both | {"preferred": np.array(preferred, np.float32)}


def _kept(coded: list[Any], fits: Sequence[bool], room: str) -> list[Any]:
    kept = [one for one, fit in zip(coded, fits, strict=True) if fit]
    if not kept:
        raise ValueError(f"all {len(coded)} pairs exceed {room}: none is left")
    return kept


def _require_choice(name: str, given: str, choices: Sequence[str]) -> None:
    if given not in choices:
        raise ValueError(f"unknown {name}={given!r}; have {sorted(choices)}")
