"""The compiled half of generation: one program reads the prompts, one runs steps until a limit or until all rows ended.

B batch · T padded prompt length · S history length (T + N) · N most new tokens · A alternatives · V vocabulary

The host calls `advance` once, or, to stream and to look for stop strings, again and again with a growing limit: it is
the same program. A row that has ended feeds padding, which leaves its cache as it is.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from research.core.types import Array, Params
from research.decoding.sample import Knobs, constrain, draw, logprob, warp
from research.ops.cache import to_int8
from research.ops.largest import largest


@dataclass(frozen=True)
class Plan:
    """What decides the compiled program, beside the shapes: cache slots, room for new tokens, what is recorded."""

    slots: int
    room: int
    spare: int = 0  # tokens a row may hold beyond its room for a moment (speculative decoding)
    logprobs: bool = True
    processed_logprobs: bool = False
    alternatives: int = 0
    tie_tolerance: float = 1e-4
    bidirectional_prompt: bool = False
    cache_dtype: str = ""  # "int8": keys and values are kept in eight bits
    limit: int = 0  # the models' own length, where speculative decoding may look past it


@struct.dataclass
class Inputs:
    """The arrays of one call that no step changes."""

    knobs: Knobs
    keys: Array  # [B] one key for each row
    source: tuple[Array, Array] | None = None  # the encoder's (ids, segments), where a knob reads them


@struct.dataclass
class State:
    """Everything a step changes; donated from step to step."""

    cache: Any
    history: Array  # [B, S] prompt and new tokens, from slot 0 on
    length: Array  # [B] tokens in the history
    count: Array  # [B] new tokens
    done: Array  # [B]
    stopped: Array  # [B] ended by a stop token
    near_ties: Array  # [B]
    step: Array  # []
    logprobs: Array | None  # [B, N]
    processed_logprobs: Array | None  # [B, N]
    alternatives: Array | None  # [B, N, A]
    alternative_logprobs: Array | None  # [B, N, A]


def blank_state(plan: Plan, cache: Any, tokens: Array, length: Array, budget: Array) -> State:
    """The state after the prompts `[B, T]` and before the first new token."""
    rows = tokens.shape[0]
    zeros = jnp.zeros((rows,), jnp.int32)
    floats = jnp.zeros((rows, plan.room), jnp.float32)
    wide = (rows, plan.room, plan.alternatives)
    return State(
        cache=cache,
        history=jnp.pad(tokens, ((0, 0), (0, plan.room + plan.spare))),
        length=length,
        count=zeros,
        done=budget == 0,
        stopped=jnp.zeros((rows,), bool),
        near_ties=zeros,
        step=jnp.zeros((), jnp.int32),
        logprobs=floats if plan.logprobs else None,
        processed_logprobs=floats if plan.processed_logprobs else None,
        alternatives=jnp.zeros(wide, jnp.int32) if plan.alternatives else None,
        alternative_logprobs=jnp.zeros(wide, jnp.float32) if plan.alternatives else None,
    )


def take_token(plan: Plan, inputs: Inputs, state: State, logits: Array) -> State:
    """Chooses the next token of every running row from raw logits `[B, V]` and writes it down."""
    knobs = inputs.knobs
    logits = logits.astype(jnp.float32)
    processed = warp(constrain(logits, knobs, state.history, state.length, state.count, inputs.source), knobs)
    token, margin = draw(processed, knobs, inputs.keys, state.count)
    live = ~state.done
    rows = jnp.arange(token.shape[0])

    def put(buffer, column, value):  # ended rows write past the end, which is dropped
        return buffer.at[rows, jnp.where(live, column, buffer.shape[1])].set(value, mode="drop")

    changes: dict[str, Array] = {"history": put(state.history, state.length, token)}
    if plan.logprobs:
        changes["logprobs"] = put(state.logprobs, state.count, logprob(logits, token))
    if plan.processed_logprobs:
        changes["processed_logprobs"] = put(state.processed_logprobs, state.count, logprob(processed, token))
    if plan.alternatives:
        best, ids = largest(logits, plan.alternatives)
        best = best - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        changes["alternatives"] = put(state.alternatives, state.count, ids.astype(jnp.int32))
        changes["alternative_logprobs"] = put(state.alternative_logprobs, state.count, best)
    stopped = live & hits(token, knobs.stops)
    count = state.count + live
    return replace(
        state,
        length=state.length + live,
        count=count,
        done=state.done | stopped | (count >= knobs.budget),
        stopped=state.stopped | stopped,
        near_ties=state.near_ties + (live & (margin < plan.tie_tolerance)),
        step=state.step + 1,
        **changes,
    )


def hits(token: Array, stops: Array | None) -> Array:
    """Which tokens are stop tokens."""
    if stops is None:
        return jnp.zeros(token.shape, bool)
    return jnp.any(token[..., None] == stops, axis=-1)


def read_prompts(model: Any, plan: Plan, params: Params, batch: dict[str, Array]) -> tuple[Any, Array, Array]:
    """Cache, last hidden state `[B, D]` and length `[B]` of right-padded prompts `[B, T]`."""
    tokens, segments = batch["tokens"], batch["segment_ids"]
    length = jnp.sum(segments > 0, axis=1, dtype=jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    feed = {"tokens": tokens, "segment_ids": segments, "positions": positions}
    if plan.bidirectional_prompt:
        feed["horizon"] = jnp.maximum(positions, length[:, None] - 1)
    cache = model.start(params, batch, plan.slots)
    out = model.apply(params, feed, cache=to_int8(cache) if plan.cache_dtype == "int8" else cache)
    hidden = jnp.take_along_axis(out.hidden, (length - 1)[:, None, None], axis=1)[:, 0]
    return out.cache, hidden, length


@partial(jax.jit, static_argnames=("model", "plan"))
def prefill(model: Any, plan: Plan, params: Params, inputs: Inputs, batch: dict[str, Array]) -> State:
    """Reads the prompts (and the encoder's input) and takes the first new token of every row."""
    cache, hidden, length = read_prompts(model, plan, params, batch)
    state = blank_state(plan, cache, batch["tokens"], length, inputs.knobs.budget)
    return take_token(plan, inputs, state, model.logits(params, hidden))


def feed_last(model: Any, params: Params, cache: Any, history: Array, length: Array, live: Array) -> tuple[Any, Array]:
    """Runs the last token of each row through the model; the cache and raw logits `[B, V]`."""
    last = (length - 1)[:, None]
    feed = {
        "tokens": jnp.take_along_axis(history, last, axis=1),
        "positions": last,
        "segment_ids": live[:, None].astype(jnp.int32),
    }
    out = model.apply(params, feed, cache=cache)
    return out.cache, model.logits(params, out.hidden[:, 0])


@partial(jax.jit, static_argnames=("model", "plan"), donate_argnames=("state",))
def advance(model: Any, plan: Plan, params: Params, inputs: Inputs, state: State, limit: Array) -> State:
    """Steps until every row has ended or `limit` tokens have been taken."""

    def running(state):
        return jnp.any(~state.done) & (state.step < limit)

    def step(state):
        cache, logits = feed_last(model, params, state.cache, state.history, state.length, ~state.done)
        return take_token(plan, inputs, replace(state, cache=cache), logits)

    return jax.lax.while_loop(running, step, state)
