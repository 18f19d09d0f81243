"""Examples for encoder-decoders: the encoder reads the prompt, the decoder learns the completion and the end after it.

S source length · T target length · P virtual tokens
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .chat import as_messages
from .corpus import ends
from .corruption import pack_pairs
from .packing import Row, first_fit
from .templates import as_pair, encode_chat_prompt


class Pair(NamedTuple):
    """Token ids of both sides, int32 [S] and [T]; every target is predicted."""

    inputs: np.ndarray
    targets: np.ndarray


def encode_source(prompt: str, tokenizer) -> list[int]:
    """A prompt as the encoder reads it, in training and for `generate`: with the tokenizer's begin and end tokens."""
    bos, eos = ends(tokenizer, None, None)
    return tokenizer.encode(prompt, bos=bos, eos=eos)


def encode_pair(example: Mapping, tokenizer) -> Pair:
    """One example with `prompt` + `completion`, Alpaca's columns, or a chat, whose last message is the completion.

    Raises:
      ValueError: other columns, a chat that the assistant does not end, or an empty completion.
    """
    if "messages" in example or "conversations" in example:
        messages = as_messages(example)
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            raise ValueError(
                "an encoder-decoder learns the last message of a chat, which must be the assistant's and have one "
                f"before it; roles are {[m['role'] for m in messages]}"
            )
        source = encode_chat_prompt(messages[:-1], tokenizer, tools=example.get("tools"))
        completion = messages[-1]["content"]
    else:
        pair = as_pair(example)
        if pair is None:
            raise ValueError(
                f"an encoder-decoder needs prompt + completion, instruction + output, or messages; got columns "
                f"{sorted(example)}"
            )
        source, completion = encode_source(pair[0], tokenizer), pair[1]
    target = tokenizer.encode(completion)
    if not target:
        raise ValueError("the completion is empty: nothing to predict")
    if not source:
        raise ValueError("the prompt is empty: the encoder has nothing to read")
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    return Pair(np.array(source, np.int32), np.array([*target, *end], np.int32))


def encode_pairs(
    examples: Iterable[Mapping], tokenizer, *, inputs_length: int, targets_length: int, long: str = "error"
) -> list[Pair]:
    """All examples; those with a side over its length raise, are cut (`"truncate"`) or left out (`"drop"`).

    A prompt that is cut keeps its last token (the end token) and loses what is before it; a completion is cut at its
    end and then does not teach to stop. An error in one example names its number.

    Raises:
      ValueError: also where cutting leaves nothing of a prompt; counts such examples.
    """
    if long not in ("error", "truncate", "drop"):
        raise ValueError(f"unknown long={long!r}; have ['drop', 'error', 'truncate']")
    if min(inputs_length, targets_length) < 1:
        raise ValueError(f"rows of {inputs_length} inputs and {targets_length} targets hold no example")
    pairs: list[Pair] = []
    for number, example in enumerate(examples):
        try:
            pairs.append(encode_pair(example, tokenizer))
        except ValueError as error:
            raise ValueError(f"example {number}: {error}") from None
    if not pairs:
        raise ValueError("no examples were given")
    fits = [len(p.inputs) <= inputs_length and len(p.targets) <= targets_length for p in pairs]
    if long == "error" and not all(fits):
        longest = [max(len(side) for side in sides) for sides in zip(*pairs, strict=True)]
        raise ValueError(
            f"{fits.count(False)} of {len(pairs)} examples exceed {inputs_length} input or {targets_length} target "
            f"tokens (the longest have {longest[0]} and {longest[1]}); choose long='truncate' or 'drop', or larger "
            "length and targets_length"
        )
    if long == "drop":
        kept = [pair for pair, fit in zip(pairs, fits, strict=True) if fit]
        if not kept:
            raise ValueError(
                f"all {len(pairs)} examples exceed {inputs_length} input or {targets_length} target tokens"
            )
        return kept
    lost = sum(len(p.inputs) > inputs_length for p in pairs) if inputs_length == 1 else 0
    if lost:
        raise ValueError(
            f"truncation to 1 input token removes the whole prompt of {lost} of {len(pairs)} examples; raise length"
        )
    return [Pair(np.array(cut(p.inputs, inputs_length), np.int32), p.targets[:targets_length]) for p in pairs]


def cut(inputs: Sequence[int] | np.ndarray, length: int) -> list[int]:
    """The first `length` tokens of a prompt, but with its last token (the end) as their last."""
    return list(inputs) if len(inputs) <= length else [*inputs[: length - 1], inputs[-1]]


class PairRows:
    """Encoder-decoder rows of pairs: several per row, apart from each other by their segments, or one each.

    `virtual`: ids of a soft prompt in front of every encoder's text.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        inputs_length: int,
        targets_length: int,
        *,
        decoder_start_id: int,
        pad_id: int = 0,
        pack: bool = True,
        virtual: Sequence[int] = (),
    ):
        front = np.asarray(virtual, np.int32)
        self._pairs = [Pair(np.concatenate([front, p.inputs]), p.targets) for p in pairs]
        self._shape = inputs_length, targets_length
        self._ids = {"decoder_start_id": decoder_start_id, "pad_id": pad_id}
        planned = first_fit([(len(p.inputs), len(p.targets)) for p in self._pairs], self._shape)
        self._plan = planned if pack else [np.array([i]) for i in range(len(pairs))]

    def __len__(self) -> int:
        return len(self._plan)

    def row(self, index: int, rng: np.random.Generator | None = None) -> Row:
        del rng
        return pack_pairs([self._pairs[i] for i in self._plan[index]], *self._shape, **self._ids)
