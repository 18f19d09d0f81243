"""From a row of logits to a token: all the knobs in one `Sampling`, applied in one call.

B batch · V vocabulary · S history length · E ids in a list.

`Sampling` is what a person writes: numbers, or one number per row. `Knobs` is what the compiled loop takes: a pytree in
which a knob that is off is None and a knob that is on is an array `[B]`. So which knobs are on decides the program, and
their values do not: another temperature recompiles nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from research.core.types import Array
from research.decoding import processors
from research.ops.largest import largest

Number = float | Sequence[float] | np.ndarray

# name -> (lowest, highest, lowest allowed itself, value that means "off")
_RANGES: dict[str, tuple[float, float, bool, float | None]] = {
    "temperature": (0.0, float("inf"), True, None),
    "top_h": (0.0, 1.0, False, None),
    "top_k": (0.0, float("inf"), True, 0.0),
    "top_p": (0.0, 1.0, False, 1.0),
    "min_p": (0.0, 1.0, True, 0.0),
    "typical_p": (0.0, 1.0, False, 1.0),
    "epsilon": (0.0, 1.0, True, 0.0),
    "eta": (0.0, 1.0, True, 0.0),
    "repetition_penalty": (0.0, float("inf"), False, 1.0),
    "encoder_repetition_penalty": (0.0, float("inf"), False, 1.0),
}
_PER_ROW = (*_RANGES, "budget", "least")
_WARPERS = ("top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon", "eta")


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; numbers may be given per row.

    The order is that of `transformers`: encoder_repetition_penalty, repetition_penalty, no_repeat_ngram, minimum
    length, forced_bos, forced_eos, suppress; then temperature, top_h, top_k, top_p, min_p, typical_p, epsilon, eta.

    temperature: 0 takes the most probable token (greedy); the filters after it act only on rows with temperature > 0.
    top_k, top_p, min_p, typical_p, epsilon, eta, top_h: see `research.decoding.processors`.
    repetition_penalty: > 1 makes tokens of the prompt and the text so far less likely.
    encoder_repetition_penalty: > 1 makes tokens of the encoder's input more likely (encoder-decoder only).
    no_repeat_ngram: no n-gram of this size occurs twice in a row's prompt and text.
    suppress: tokens never produced. forced_bos, forced_eos: the first token, and the last one that still fits.
    """

    temperature: Number = 0.0
    top_k: Number | None = None
    top_p: Number | None = None
    min_p: Number | None = None
    typical_p: Number | None = None
    epsilon: Number | None = None
    eta: Number | None = None
    top_h: Number | None = None
    repetition_penalty: Number | None = None
    encoder_repetition_penalty: Number | None = None
    no_repeat_ngram: int | None = None
    suppress: Sequence[int] = ()
    forced_bos: int | None = None
    forced_eos: int | None = None

    def __post_init__(self):
        for name, (low, high, closed, _) in _RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            numbers = np.asarray(value, np.float64)
            if not np.all(((numbers >= low) if closed else (numbers > low)) & (numbers <= high)):
                left = "[" if closed else "("
                raise ValueError(f"{name} must lie in {left}{low:g}, {high:g}], got {value}")
        if self.top_k is not None and np.any(np.asarray(self.top_k) % 1):
            raise ValueError(f"top_k must be a whole number, got {self.top_k}")
        if self.no_repeat_ngram is not None and self.no_repeat_ngram < 1:
            raise ValueError(f"no_repeat_ngram must be at least 1, got {self.no_repeat_ngram}")
        idle = [name for name in _WARPERS if getattr(self, name) is not None]
        if idle and not np.any(np.asarray(self.temperature) > 0):
            raise ValueError(f"{', '.join(idle)} act only when sampling: give a temperature > 0 (it is 0, greedy)")


def side_by_side(samplings: Sequence[Sampling]) -> Sampling:
    """One `Sampling` whose row i is chosen as `samplings[i]` says: different knobs in one batch and one program.

    Raises:
      ValueError: none was given, they differ in a knob that is not per row, or some use `top_h` and some do not.
    """
    if not samplings:
        raise ValueError("side_by_side needs at least one sampling")
    for name in ("no_repeat_ngram", "suppress", "forced_bos", "forced_eos"):
        if len({str(getattr(s, name)) for s in samplings}) > 1:
            raise ValueError(f"{name} is the same for all rows; given {[getattr(s, name) for s in samplings]}")
    values: dict[str, Any] = {}
    for name, (_, _, _, off) in _RANGES.items():
        given = [getattr(s, name) for s in samplings]
        if any(value is not None for value in given):
            if off is None and any(value is None for value in given):
                raise ValueError(f"{name} cannot be off in some rows and on in others; given {given}")
            values[name] = [off if value is None else value for value in given]
    return replace(samplings[0], **values)


@struct.dataclass
class Knobs:
    """`Sampling` and the length limits of one call as arrays; None = off, and off costs nothing."""

    budget: Array  # [B] most new tokens
    temperature: Array | None = None  # [B]; None = every row greedy
    top_k: Array | None = None
    top_p: Array | None = None
    min_p: Array | None = None
    typical_p: Array | None = None
    epsilon: Array | None = None
    eta: Array | None = None
    top_h: Array | None = None
    repetition_penalty: Array | None = None
    encoder_repetition_penalty: Array | None = None
    suppress: Array | None = None  # [E]
    forced_bos: Array | None = None  # [1]
    forced_eos: Array | None = None  # [1]
    least: Array | None = None  # [B] fewest new tokens before a stop token is allowed
    stops: Array | None = None  # [E] stop tokens
    no_repeat_ngram: int | None = struct.field(pytree_node=False, default=None)


def make_knobs(sampling: Sampling, budget: np.ndarray, least: np.ndarray, stops: Sequence[int]) -> Knobs:
    """The arrays of one call: `budget`, `least` `[B]` are the most and fewest new tokens, `stops` the stop tokens."""
    rows = len(budget)
    values: dict[str, Array | None] = {}
    for name, (_, _, _, off) in _RANGES.items():
        value = getattr(sampling, name)
        if value is None or (off is not None and np.all(np.asarray(value) == off)):
            continue
        numbers = np.asarray(value, np.int32 if name == "top_k" else np.float32)
        if numbers.ndim and numbers.shape != (rows,):
            raise ValueError(f"{name} has shape {numbers.shape}, expected one number or one for each of {rows} rows")
        values[name] = jnp.asarray(np.broadcast_to(numbers, (rows,)))
    if not np.any(np.asarray(sampling.temperature) > 0):
        values["temperature"] = None
    for name in ("suppress", "forced_bos", "forced_eos"):
        value = getattr(sampling, name)
        if value is not None and np.size(value):
            values[name] = jnp.asarray(np.atleast_1d(value), jnp.int32)
    if len(stops):
        values["stops"] = jnp.asarray(np.asarray(stops, np.int32))
        if np.any(least > 0):
            values["least"] = jnp.asarray(least, jnp.int32)
    return Knobs(budget=jnp.asarray(budget, jnp.int32), no_repeat_ngram=sampling.no_repeat_ngram, **values)


def repeat_rows(knobs: Knobs, times: int) -> Knobs:
    """The same knobs for a batch in which every row stands `times` times in succession."""
    given = {name: getattr(knobs, name) for name in _PER_ROW}
    repeated: dict[str, Any] = {k: jnp.repeat(v, times, axis=0) for k, v in given.items() if v is not None}
    return replace(knobs, **repeated)


def constrain(
    logits: Array, knobs: Knobs, history: Array, length: Array, count: Array, source: tuple[Array, Array] | None = None
) -> Array:
    """The rules that hold for greedy, beam search and sampling alike, `[B, V] -> [B, V]`.

    `history [B, S]` holds `length [B]` tokens, `count [B]` of them new; `source` is the encoder's `(ids, segments)`.
    """
    if knobs.encoder_repetition_penalty is not None:
        if source is None:
            raise ValueError("encoder_repetition_penalty needs an encoder-decoder model: this one has no encoder input")
        ids, segments = source
        seen = processors.seen(ids, segments > 0, logits.shape[-1])
        logits = processors.penalize(logits, seen, 1.0 / knobs.encoder_repetition_penalty)
    if knobs.repetition_penalty is not None:
        logits = processors.repetition_penalty(logits, history, length, knobs.repetition_penalty)
    if knobs.no_repeat_ngram is not None:
        logits = processors.no_repeat_ngram(logits, history, length, knobs.no_repeat_ngram)
    if knobs.least is not None and knobs.stops is not None:
        logits = processors.suppress(logits, knobs.stops, count < knobs.least)
    if knobs.forced_bos is not None:
        logits = processors.force(logits, knobs.forced_bos, count == 0)
    if knobs.forced_eos is not None:
        logits = processors.force(logits, knobs.forced_eos, count == knobs.budget - 1)
    if knobs.suppress is not None:
        logits = processors.suppress(logits, knobs.suppress)
    return logits


def warp(logits: Array, knobs: Knobs) -> Array:
    """Temperature and the filters of sampling, `[B, V] -> [B, V]`; without a temperature (greedy) nothing changes."""
    if knobs.temperature is None:
        return logits
    warped = processors.temperature(logits, knobs.temperature)
    for name, function in (
        ("top_h", processors.top_h),
        ("top_k", processors.top_k),
        ("top_p", processors.top_p),
        ("min_p", processors.min_p),
        ("typical_p", processors.typical),
        ("epsilon", processors.epsilon),
        ("eta", processors.eta),
    ):
        value = getattr(knobs, name)
        if value is not None:
            warped = function(warped, value)
    return jnp.where(knobs.temperature[:, None] > 0, warped, logits)


def row_keys(key: Array, seeds: Array) -> Array:
    """One key for each row: fold_in(key, seed), so a row's noise does not depend on its batch."""
    return jax.vmap(lambda seed: jax.random.fold_in(key, seed))(seeds)


def draw(processed: Array, knobs: Knobs, keys: Array, count: Array) -> tuple[Array, Array]:
    """The next token `[B]` of each row and the margin `[B]` between the best and the second best choice.

    Sampling is the Gumbel-max trick, argmax(logits + g), with g drawn from fold_in(row key, count): the same row at the
    same step gets the same noise in any batch. A margin near zero means that rounding may decide.
    """
    if knobs.temperature is not None:
        sampled = knobs.temperature > 0

        def noise(row_key, step):
            return jax.random.gumbel(jax.random.fold_in(row_key, step), processed.shape[-1:], jnp.float32)

        processed = processed + jnp.where(sampled[:, None], jax.vmap(noise)(keys, count), 0.0)
    best, ids = largest(processed, min(2, processed.shape[-1]))
    margin = best[:, 0] - best[:, 1] if best.shape[-1] > 1 else jnp.full(best.shape[:1], jnp.inf)
    return ids[:, 0].astype(jnp.int32), margin


def logprob(logits: Array, tokens: Array) -> Array:
    """log softmax(logits)[token], `[B, V], [B] -> [B]`."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)
