"""How likely a model finds texts and continuations: sums of log probabilities in which each token counts once.

Long texts are read in windows that overlap; a token is scored in the window in which it sees the most.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from research.core.names import meant
from research.core.types import Params
from research.data.templates import encode_completion
from research.models import Model

from .scored_rows import Row, padded_width, score_rows, windows
from .text_metrics import bits_per_byte

KINDS = ("sum", "token", "byte", "unconditional")


class Scores(NamedTuple):
    """One entry per text or pair, all [n].

    Attributes:
      nats: −Σ ln p of the counted tokens. tokens: how many they are. bytes: of the text or continuation, in UTF-8.
      greedy: whether each counted token was the most likely one.
    """

    nats: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    greedy: np.ndarray

    @property
    def perplexity(self) -> float:
        """exp of the mean nats over all tokens; depends on the tokenizer."""
        return math.exp(float(self.nats.sum()) / max(int(self.tokens.sum()), 1))

    @property
    def bits_per_byte(self) -> float:
        """Bits over all bytes; tokenizers can be compared by it."""
        return bits_per_byte(float(self.nats.sum()), int(self.bytes.sum()))


def score(
    model: Model,
    params: Params,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    stride: int | None = None,
    length: int | None = None,
    batch_size: int = 16,
    end: bool = True,
    virtual: Sequence[int] = (),
) -> Scores:
    """All tokens of each text after its start token, and its end token where `end` and there is one.

    Windows of `length` tokens (default: what the model takes) move on by `stride` (default: half of it), so that every
    token but the first ones sees at least length − stride tokens. See https://huggingface.co/docs/transformers/perplexity.

    tokenizer: needs a begin or an end token, which every text starts after. virtual: the ids of a soft prompt
    (`weights.prompts.virtual_ids`) to put in front of every window.

    Raises:
      ValueError: a model that is no causal language model, no texts, or a stride that skips tokens.
    """
    _check_model(model, ("decoder",))
    _check_texts(texts)
    length = _room(model, length, virtual)
    stride = max(length // 2, 1) if stride is None else stride
    if not 1 <= stride <= length:
        raise ValueError(f"a window of {length} tokens can move on by 1 to {length} of them, given stride={stride}")
    last = [tokenizer.eos_id] if end and tokenizer.eos_id is not None else []
    first = _start(tokenizer)
    coded = [[first, *tokenizer.encode(text, specials=False), *last] for text in texts]
    rows = [windows(ids, length, stride) for ids in coded]
    # One shape for all windows: those of a text differ in length only at its end.
    width = padded_width(max((len(row.tokens) for some in rows for row in some), default=1), length)
    flat = [row for some in rows for row in some]
    nats, greedy = score_rows(model, params, flat, width=width, length=length, batch_size=batch_size, virtual=virtual)
    owner = np.repeat(np.arange(len(texts)), [len(some) for some in rows])
    return Scores(
        np.bincount(owner, weights=nats, minlength=len(texts)),
        np.array([len(ids) - 1 for ids in coded]),
        _bytes(texts),
        np.bincount(owner, weights=~greedy, minlength=len(texts)) == 0,
    )


def score_pairs(
    model: Model,
    params: Params,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    *,
    boundary: str = "joint",
    long: str = "error",
    length: int | None = None,
    batch_size: int = 16,
    virtual: Sequence[int] = (),
) -> Scores:
    """The continuation of each (context, continuation), given its context.

    A decoder reads both: with `boundary="joint"` as one text whose first tokens must be the context's own (blanks at
    the end of the context go to the continuation, where most tokenizers have them), with "separate" each encoded by
    itself. An empty context is the begin or end token. An encoder reads the context, its decoder the continuation.

    long: what happens to a pair that the model cannot hold: "error", or "cut": the context loses its oldest tokens.

    Raises:
      ValueError: names the pair that is empty, too long, or whose boundary falls into a token.
    """
    _check_model(model, ("decoder", "encoder_decoder"))
    if long not in ("error", "cut"):
        raise ValueError(f"unknown long={long!r}; have ['cut', 'error']")
    if not pairs:
        raise ValueError("nothing to score: no pairs of context and continuation were given")
    length = _room(model, length, virtual)
    make = _source_row if model.config.kind == "encoder_decoder" else _joined_row
    rows = []
    for number, (context, continuation) in enumerate(pairs):
        try:
            row = make(model, tokenizer, context, continuation, boundary)
            rows.append(_fitted(row, length, long))
        except ValueError as error:
            raise ValueError(f"pair {number}: {error}") from None
    nats, greedy = score_rows(model, params, rows, length=length, batch_size=batch_size, virtual=virtual)
    counted = np.array([len(row.targets) - row.skipped for row in rows])
    return Scores(nats, counted, _bytes([continuation for _, continuation in pairs]), greedy)


def score_choices(
    model: Model,
    params: Params,
    tokenizer: Any,
    questions: Sequence[tuple[str, Sequence[str]]],
    *,
    by: str = "sum",
    neutral: str = "",
    **options: Any,
) -> list[np.ndarray]:
    """For each (context, choices) one number per choice, the likeliest having the largest.

    by: "sum" of log probabilities, that per "token" or per "byte", or "unconditional": the sum less that of the choice
    after the `neutral` context, which takes out how common a choice is by itself. See *Language Models are Few-Shot
    Learners*, Brown et al., section 2.4, https://arxiv.org/abs/2005.14165. Other options are those of `score_pairs`.
    """
    if by not in KINDS:
        raise ValueError(f"unknown way to score choices {by!r}{meant(by, KINDS)}; have {list(KINDS)}")
    lone = [i for i, (_, choices) in enumerate(questions) if isinstance(choices, str) or not choices]
    if lone or not questions:
        raise ValueError(f"questions need a list of choices each; question {lone[0] if lone else 0} has none")
    pairs = [(context, choice) for context, choices in questions for choice in choices]
    neutrals = [(neutral, choice) for _, choice in pairs] if by == "unconditional" else []
    asked = list(dict.fromkeys(pairs + neutrals))
    found = score_pairs(model, params, tokenizer, asked, **options)
    place = {pair: i for i, pair in enumerate(asked)}
    where = np.array([place[pair] for pair in pairs])
    value = -found.nats[where]
    if by == "token":
        value = value / found.tokens[where]
    elif by == "byte":
        value = value / found.bytes[where]
    elif by == "unconditional":
        value = value + found.nats[[place[pair] for pair in neutrals]]
    return np.split(value, np.cumsum([len(choices) for _, choices in questions])[:-1])


def _joined_row(model: Model, tokenizer: Any, context: str, continuation: str, boundary: str) -> Row:
    """Context and continuation one behind the other."""
    del model
    if not context:
        if not continuation:
            raise ValueError("the continuation is empty: nothing to predict")
        ids = [_start(tokenizer), *tokenizer.encode(continuation)]
        return Row(ids[:-1], ids[1:])
    if boundary == "joint":
        text = context.rstrip()
        # A context of nothing but blanks keeps them: there is no word that they could stand behind.
        context, continuation = (
            (text, context[len(text) :] + continuation) if text and continuation else (context, continuation)
        )
    example = encode_completion(context, continuation, tokenizer, boundary=boundary, eos=False)
    ids = example.tokens.tolist()
    before = len(ids) - int(np.asarray(example.loss_mask).sum())
    if not 0 < before < len(ids):
        raise ValueError(f"context {context!r} and continuation {continuation!r} must give at least one token each")
    return Row(ids[:-1], ids[1:], before - 1)


def _source_row(model: Model, tokenizer: Any, context: str, continuation: str, boundary: str) -> Row:
    """The context for the encoder, with its end token, and the continuation for the decoder."""
    del boundary  # the two never touch
    if not continuation:
        raise ValueError("the continuation is empty: nothing to predict")
    if model.config.decoder_start_id < 0:
        raise ValueError("config.decoder_start_id is not set: the decoder has no token to begin with")
    targets = tokenizer.encode(continuation)
    source = tokenizer.encode(context, eos=tokenizer.eos_id is not None)
    return Row([model.config.decoder_start_id, *targets[:-1]], targets, 0, source or [_start(tokenizer)])


def _fitted(row: Row, length: int, long: str) -> Row:
    """The row as the model can hold it."""
    over, over_source = len(row.tokens) - length, len(row.source) - length
    if long == "error" and max(over, over_source) > 0:
        raise ValueError(
            f"context and continuation have {max(len(row.tokens), len(row.source))} tokens, the model takes {length}; "
            "shorten the context, or choose long='cut'"
        )
    if over > row.skipped:
        raise ValueError(f"the continuation has {len(row.targets) - row.skipped} tokens, the model takes {length}")
    source = row.source[max(over_source, 0) :]
    if over <= 0:
        return row._replace(source=source)
    return Row(row.tokens[over:], row.targets[over:], row.skipped - over, source)


def _room(model: Model, length: int | None, virtual: Sequence[int]) -> int:
    """Tokens of a text that the model can hold behind a soft prompt."""
    most = model.config.max_length - len(virtual)
    if length is None:
        return most
    if not 1 <= length <= most:
        raise ValueError(f"length={length} does not fit the model, which takes 1 to {most} tokens")
    return length


def _start(tokenizer: Any) -> int:
    """The token that a text begins after."""
    first = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
    if first is None:
        raise ValueError("the tokenizer has no begin and no end token: nothing predicts the first token of a text")
    return first


def _check_model(model: Model, kinds: Sequence[str]) -> None:
    config = model.config
    if config.kind not in kinds or config.head != "lm":
        raise ValueError(
            f"likelihoods need a model of kind {' or '.join(kinds)} with head 'lm'; "
            f"this one is {config.kind} with head {config.head!r}"
        )


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str) or not texts:
        raise ValueError(f"texts is a list of at least one text; got {texts!r:.40}")


def _bytes(texts: Sequence[str]) -> np.ndarray:
    return np.array([len(text.encode()) for text in texts])
