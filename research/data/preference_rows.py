"""Rows of preferences: both answers to a prompt side by side, [2, T], the chosen one first; only answers are predicted.

Both answers stand behind the same prompt tokens, also where the prompt is cut, and no answer is ever cut: a loss that
compares them compares whole answers to one question.

T length · S source length
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .corruption import pack_pairs
from .packing import Example, Row, pack_row
from .preference import Preference, Prompt, UnusablePairError, as_preference
from .seq2seq import Pair, cut, encode_pair
from .sources import Rows
from .templates import encode_chat, encode_chat_prompt, encode_completion
from .virtual import with_virtual


class Coded(NamedTuple):
    """Both answers with the prompt in front of them, as token ids and masks; `prompt` counts its tokens.

    asked: the prompt before anything was cut, where it is to be told from others (`data.unpaired`).
    """

    chosen: Example
    rejected: Example
    prompt: int
    preferred: float
    asked: str = ""


class CodedPair(NamedTuple):
    """What the encoder reads and both answers for the decoder, as token ids."""

    inputs: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    preferred: float
    asked: str = ""


def encode_preference(
    preference: Preference, tokenizer: Any, *, template: str | None = None, boundary: str = "joint"
) -> Coded:
    """One preference for a decoder. A chat goes through its template, a text and its answer as in `encode_completion`.

    Raises:
      ValueError: no chat template, or a prompt whose tokens are not those that both answers follow.
    """
    chosen, rejected = (
        encode_answer(preference.prompt, text, tokenizer, template=template, boundary=boundary)
        for text in (preference.chosen, preference.rejected)
    )
    if not np.array_equal(chosen[0].tokens[: chosen[1]], rejected[0].tokens[: rejected[1]]):
        raise ValueError("the answers do not follow the same prompt tokens; use boundary='separate'")
    return Coded(chosen[0], rejected[0], chosen[1], preference.preferred)


def encode_answer(
    prompt: Prompt, answer: str, tokenizer: Any, *, template: str | None = None, boundary: str = "joint"
) -> tuple[Example, int]:
    """A prompt with its answer, of which alone something is predicted, and how many tokens the prompt has."""
    if isinstance(prompt, str):
        example = encode_completion(prompt, answer, tokenizer, boundary=boundary)
        return example, int(np.argmax(example.loss_mask))
    head = encode_chat_prompt(prompt, tokenizer, template=template)
    said = [*prompt, {"role": "assistant", "content": answer}]
    whole = encode_chat(said, tokenizer, template=template)
    # Of a longer chat only the last turn is what is judged.
    return Example(whole.tokens, whole.loss_mask & (np.arange(len(whole.tokens)) >= len(head))), len(head)


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
      unusable: what becomes of pairs of equal answers, with an empty one, of different prompts, or with an answer that
        alone is too long to be truncated for: "error" or "drop".

    Raises:
      ValueError: counts the examples that are too long.
    """
    encode = partial(encode_preference, tokenizer=tokenizer, template=template, boundary=boundary)
    coded = encoded(examples, lambda example: [encode(as_preference(example))], unusable)
    return fitted(coded, length, tokenizer, long=long, unusable=unusable)


def fitted(coded: list[Coded], length: int, tokenizer: Any, *, long: str, unusable: str) -> list[Coded]:
    """Those that fit a row of `length` tokens, or are cut to; see `encode_preferences`."""
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
    if unusable == "drop":
        coded = _kept(coded, [size(c) - c.prompt < length for c in coded], f"{length} tokens with their answers alone")
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

    long: "truncate" cuts prompts as `seq2seq.encode_pairs` does; an answer over its length is unusable all the same.
    """

    def encode(example: Mapping) -> list[CodedPair]:
        preference = as_preference(example)
        chosen, rejected = (encode_seq2seq(preference.prompt, text, tokenizer) for text in preference[1:3])
        return [CodedPair(chosen.inputs, chosen.targets, rejected.targets, preference.preferred)]

    coded = encoded(examples, encode, unusable)
    return fitted_pairs(coded, inputs_length, targets_length, long=long, unusable=unusable)


def fitted_pairs(
    coded: list[CodedPair], inputs_length: int, targets_length: int, *, long: str, unusable: str
) -> list[CodedPair]:
    """Those that fit, or whose prompts are cut to; see `encode_preference_pairs`."""
    _require_choice("long", long, ("error", "truncate", "drop"))
    answer = lambda c: max(len(c.chosen), len(c.rejected))  # noqa: E731
    if long == "drop":
        fits = [answer(c) <= targets_length and len(c.inputs) <= inputs_length for c in coded]
        return _kept(coded, fits, f"{inputs_length} input or {targets_length} target tokens")
    if long == "truncate" and unusable == "drop":
        coded = _kept(coded, [answer(c) <= targets_length for c in coded], f"{targets_length} target tokens")
    answers, reads = [answer(c) for c in coded], [len(c.inputs) for c in coded]
    wide = sum(r > inputs_length for r in reads) if long == "error" else 0
    if wide or max(answers) > targets_length:
        raise ValueError(
            f"of {len(coded)} pairs {wide} exceed {inputs_length} input tokens and "
            f"{sum(a > targets_length for a in answers)} exceed {targets_length} target tokens (the longest have "
            f"{max(reads)} and {max(answers)}); choose long='drop', or 'truncate' for prompts, or larger lengths"
        )
    return [c._replace(inputs=np.array(cut(c.inputs, inputs_length), np.int32)) for c in coded]


class PreferenceRows:
    """Rows of one preference each, [2, T] and padded on the right, with `preferred` [].

    virtual: ids of a soft prompt in front of every text, for which `length` has room.
    """

    def __init__(self, coded: Sequence[Coded], length: int, *, pad_id: int = 0, virtual: Sequence[int] = ()) -> None:
        self._coded, self._length, self._pad_id, self._virtual = coded, length, pad_id, virtual

    def __len__(self) -> int:
        return len(self._coded)

    def row(self, index: int, rng: np.random.Generator | None = None) -> Row:
        del rng
        one = self._coded[index]
        both = (with_virtual(answer, self._virtual) for answer in (one.chosen, one.rejected))
        rows = [pack_row([answer], self._length, self._pad_id) for answer in both]
        return _side_by_side(rows, one.preferred)


class PreferencePairRows:
    """The same for an encoder-decoder: `inputs` [2, S] hold the prompt twice, behind a soft prompt's ids."""

    def __init__(
        self,
        coded: Sequence[CodedPair],
        inputs_length: int,
        targets_length: int,
        *,
        decoder_start_id: int,
        pad_id: int = 0,
        virtual: Sequence[int] = (),
    ) -> None:
        self._coded, self._shape = coded, (inputs_length, targets_length)
        self._front = np.asarray(virtual, np.int32)
        self._ids = {"decoder_start_id": decoder_start_id, "pad_id": pad_id}

    def __len__(self) -> int:
        return len(self._coded)

    def row(self, index: int, rng: np.random.Generator | None = None) -> Row:
        del rng
        one = self._coded[index]
        inputs = np.concatenate([self._front, one.inputs])
        rows = [pack_pairs([(inputs, answer)], *self._shape, **self._ids) for answer in (one.chosen, one.rejected)]
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


def require_two_outcomes(preferred: Sequence[float], *, single: bool) -> None:
    """Refuses judgements of which nothing can be learned: all good, all bad, or (not `single`) all ties."""
    if single and len(set(preferred)) == 1:
        kind = "desirable" if preferred[0] else "undesirable"
        raise ValueError(f"all {len(preferred)} answers are {kind}; learning from single answers needs both kinds")
    if not single and all(p == 0.5 for p in preferred):
        raise ValueError(f"all {len(preferred)} pairs are ties: there is nothing to prefer")


def encoded(examples: Iterable[Mapping], encode: Callable[[Mapping], list[Any]], unusable: str) -> list[Any]:
    """What all examples are encoded to; one that is unusable raises, naming its number, or is dropped."""
    _require_choice("unusable", unusable, ("error", "drop"))
    coded, given = [], 0
    for number, example in enumerate(examples):
        given += 1
        try:
            coded += encode(example)
        except ValueError as error:
            if not (unusable == "drop" and isinstance(error, UnusablePairError)):
                raise ValueError(f"example {number}: {error}") from None
    if not coded:
        raise ValueError(f"no pair is left of {given} examples" if given else "no examples were given")
    return coded


def encode_seq2seq(prompt: Prompt, answer: str, tokenizer: Any) -> Pair:
    """A prompt and an answer for an encoder-decoder."""
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
    return coded._replace(chosen=chosen, rejected=rejected, prompt=room)


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
