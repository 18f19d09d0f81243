"""The compiled half of continuous batching: a fixed number of rows, each of which a request may hold for a while.

B slots · S history length · C chunk length · A alternatives · V vocabulary

Few programs, whatever comes: `read` takes a chunk of one prompt into a cache of one row, `seat` puts that row into a
slot, `step` gives every running slot its next token, a program for each of the few sizes of what it looks back at.
What only some requests want (noise, filters, a penalty, alternatives) stands behind a `cond` on the device, so that it
costs nothing when nobody wants it and compiles nothing when somebody does.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from research.apps.serving import Ask
from research.core.types import Array, Params
from research.decoding import processors
from research.decoding.loop import feed_last
from research.decoding.prompts import has_encoder
from research.decoding.sample import Knobs, draw, logprob, row_keys, warp
from research.ops.cache import Cache
from research.ops.largest import largest
from research.weights import route
from research.weights.lora import Routed
from research.weights.wrapper import is_wrapper


@struct.dataclass
class Wishes:
    """How a row is continued, [B] each; `key` is the row's own."""

    key: Array
    temperature: Array
    top_p: Array
    top_k: Array
    min_p: Array
    penalty: Array
    tells: Array  # whether alternatives are wanted
    adapter: Array


@struct.dataclass
class Slots:
    """All rows, running or not; donated from step to step."""

    cache: Cache
    history: Array  # [B, S]
    length: Array  # [B] tokens in the history; all but the last are in the cache
    count: Array  # [B] new tokens
    wishes: Wishes


class Written(NamedTuple):
    """A step's tokens [B] with their log-probabilities, and the likeliest tokens [B, A] (zeros where nobody asked)."""

    token: Array
    logprob: Array
    alternatives: Array
    alternative_logprobs: Array


def wishes(rows: int) -> Wishes:
    """Greedy rows of the base model."""
    full = lambda value, kind: jnp.full((rows,), value, kind)  # noqa: E731
    key = jax.vmap(jax.random.key)(full(0, jnp.uint32))
    zero, one = (partial(full, value, jnp.float32) for value in (0, 1))
    return Wishes(key, zero(), one(), full(0, jnp.int32), zero(), one(), full(False, bool), full(0, jnp.int32))


def wish(ask: Ask, adapter: int) -> Wishes:
    """The one row of a request."""
    one: Any = lambda value, kind: np.full((1,), value, kind)  # noqa: E731
    return Wishes(
        key=_key(np.full((1,), ask.seed & 0xFFFFFFFF, np.uint32)),
        temperature=one(ask.temperature, np.float32),
        top_p=one(ask.top_p, np.float32),
        top_k=one(ask.top_k, np.int32),
        min_p=one(ask.min_p, np.float32),
        penalty=one(ask.repetition_penalty, np.float32),
        tells=one(ask.logprobs is not None and (ask.logprobs > 0 or ask.echo), bool),
        adapter=one(adapter, np.int32),
    )


@jax.jit
def _key(seed: Array) -> Array:
    return row_keys(jax.random.key(0), seed)


@partial(jax.jit, static_argnames=("model", "window"))
def start(model: Any, window: int, params: Params, adapter: Array, batch: Mapping[str, Any]) -> Cache:
    """Empty caches; what an encoder says is filled up to the window, so that all rows have one shape."""
    cache = model.start(routed(params, adapter), batch, window)
    if cache.cross is None:
        return cache
    grow = window - cache.cross_segments.shape[1]
    wide = lambda x: jnp.pad(x, [(0, grow if axis == 1 else 0) for axis in range(x.ndim)])  # noqa: E731
    return replace(cache, cross=jax.tree.map(wide, cache.cross), cross_segments=wide(cache.cross_segments))


def blank(model: Any, window: int, params: Params, rows: int) -> Slots:
    """Slots that nobody holds."""
    empty, row = np.zeros((rows, 1), np.int32), wishes(rows)
    batch = {"tokens": empty}
    if has_encoder(model):
        batch |= {"inputs": empty, "input_segment_ids": empty}
    cache = start(model, window, params, row.adapter, batch)
    length, count = jnp.ones((rows,), jnp.int32), jnp.zeros((rows,), jnp.int32)
    return Slots(cache, jnp.zeros((rows, window), jnp.int32), length, count, row)


def routed(params: Params, adapter: Array) -> Params:
    """Row i of the batch through adapter[i], where the weights hold a pool of adapters."""
    pooled = any(isinstance(node, Routed) for node in jax.tree.leaves(params, is_leaf=is_wrapper))
    return route(params, adapter) if pooled else params


def _likeliest(logits: Array, wanted: Array, alternatives: int) -> tuple[Array, Array]:
    """(ids, log-probabilities) [..., A] of the likeliest tokens."""
    shape = (*logits.shape[:-1], alternatives)

    def some(logits: Array) -> tuple[Array, Array]:
        best, ids = largest(logits.reshape(-1, logits.shape[-1]), alternatives)
        best = best.reshape(shape) - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        return ids.reshape(shape).astype(jnp.int32), best

    none = lambda _: (jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32))  # noqa: E731
    return jax.lax.cond(wanted, some, none, logits)


def _choose(logits: Array, slots: Slots, live: Array) -> Array:
    """The next token [B] of each row as its wishes say."""
    w = slots.wishes
    none = jnp.zeros((1,), jnp.int32)
    knobs = Knobs(budget=none, temperature=w.temperature)
    filters = replace(knobs, top_k=w.top_k, top_p=w.top_p, min_p=w.min_p)
    drawn = jnp.any(live & (w.temperature > 0))
    filtered = jnp.any(live & (w.temperature > 0) & ((w.top_k > 0) | (w.top_p < 1) | (w.min_p > 0)))

    def penalized(x: Array) -> Array:
        return processors.repetition_penalty(x, slots.history, slots.length, w.penalty)

    def sampled(x: Array) -> Array:
        x = jax.lax.cond(filtered, lambda x: warp(x, filters), lambda x: warp(x, knobs), x)
        return draw(x, knobs, w.key, slots.count)[0]

    logits = jax.lax.cond(jnp.any(live & (w.penalty != 1)), penalized, lambda x: x, logits)
    return jax.lax.cond(drawn, sampled, lambda x: draw(x, Knobs(budget=none), w.key, slots.count)[0], logits)


@partial(jax.jit, static_argnames=("model", "alternatives", "spoken", "front"), donate_argnames=("slots",))
def step(
    model: Any, alternatives: int, spoken: int, front: int, params: Params, slots: Slots, live: Array
) -> tuple[Slots, Written]:
    """The next token of every live row, one of the first `spoken` ids; the others stay as they are.

    All that the live rows hold lies in the first `front` slots of the cache: the rest is not read.
    """
    weights = routed(params, slots.wishes.adapter)
    cache = replace(slots.cache, front=front)
    cache, logits = feed_last(model, weights, cache, slots.history, slots.length, live)
    logits = logits.astype(jnp.float32)
    # Rows of the table behind the tokenizer's words stand for nothing.
    allowed = logits if spoken == logits.shape[-1] else logits.at[:, spoken:].set(processors.NEG)
    token = _choose(allowed, slots, live)
    ids, best = _likeliest(logits, jnp.any(live & slots.wishes.tells), alternatives)
    rows = jnp.arange(token.shape[0])
    column = jnp.where(live, slots.length, slots.history.shape[1])  # ended rows write past the end: dropped
    new = replace(
        slots,
        cache=replace(cache, front=None),
        history=slots.history.at[rows, column].set(token, mode="drop"),
        length=slots.length + live,
        count=slots.count + live,
    )
    return new, Written(token, logprob(logits, token), ids, best)


@partial(jax.jit, static_argnames=("model", "alternatives"), donate_argnames=("cache",))
def read(
    model: Any,
    alternatives: int,
    params: Params,
    cache: Cache,
    tokens: Array,
    first: Array,
    targets: Array,
    row: Wishes,
) -> tuple[Cache, Written]:
    """Takes a chunk `[1, C]` of a prompt, whose first token has position `first`; -1 is padding behind it.

    Returns: the cache, and for each position what the model gives `targets` [1, C] there and the likeliest tokens;
      zeros unless the row tells alternatives.
    """
    C = tokens.shape[1]
    feed = {
        "tokens": jnp.maximum(tokens, 0),
        "segment_ids": (tokens >= 0).astype(jnp.int32),
        "positions": first + jnp.arange(C, dtype=jnp.int32)[None],
    }
    weights = routed(params, row.adapter)
    out = model.apply(weights, feed, cache=cache)

    def told(hidden: Array) -> Written:
        logits = model.logits(weights, hidden).astype(jnp.float32)
        ids, best = _likeliest(logits, jnp.array(True), alternatives)
        return Written(targets[0], logprob(logits, targets[0]), ids, best)

    def silent(hidden: Array) -> Written:
        blank, wide = jnp.zeros((C,), jnp.float32), (C, alternatives)
        return Written(targets[0], blank, jnp.zeros(wide, jnp.int32), jnp.zeros(wide, jnp.float32))

    return out.cache, jax.lax.cond(row.tells[0], told, silent, out.hidden[0])


@partial(jax.jit, donate_argnames=("slots",))
def seat(slots: Slots, slot: Array, cache: Cache, history: Array, length: Array, row: Wishes) -> Slots:
    """A row `[1, ...]` that has been read, put into a slot."""
    put = lambda old, new: old.at[slot].set(new[0].astype(old.dtype) if old.dtype != new.dtype else new[0])  # noqa: E731
    return Slots(
        cache=jax.tree.map(put, slots.cache, cache),
        history=put(slots.history, history),
        length=put(slots.length, length),
        count=slots.count.at[slot].set(0),
        wishes=jax.tree.map(put, slots.wishes, row),
    )
