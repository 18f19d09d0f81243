"""Speculative decoding: a small model drafts γ tokens, the large one judges them all in one pass.

B batch · γ drafted tokens · S history length · V vocabulary

A drafted token d is kept with probability min(1, p(d)/q(d)); at the first refusal the token is drawn from
max(p - q, 0) / Σ max(p - q, 0), and if all are kept one more is drawn from p. What comes out is distributed exactly
as the large model alone: p and q are the two models' distributions after all knobs of `Sampling`. For a greedy row
both are one-hot, and the rule becomes: keep while the draft agrees.

See *Fast Inference from Transformers via Speculative Decoding*, Leviathan et al., https://arxiv.org/abs/2211.17192
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from research.core.types import Array, Params
from research.decoding import prompts as layout
from research.decoding.generate import prepare
from research.decoding.loop import Inputs, Plan, State, blank_state, hits, read_prompts, take_token
from research.decoding.reader import Reader
from research.decoding.request import make_batch, make_inputs, make_request
from research.decoding.result import Generation, Piece
from research.decoding.sample import Sampling, constrain, logprob, warp
from research.ops.largest import largest

_DRAFT, _JUDGE, _REPLACE = 1, 2, 3  # one stream of noise for each use


@struct.dataclass
class Pair:
    """What the loop keeps beside the text: both caches, and counts `[B]`."""

    target: Any
    draft: Any
    rounds: Array
    examined: Array
    accepted: Array


def expected_tokens(rate: float, gamma: int) -> float:
    """Mean tokens per pass of the target, (1 - α^(γ+1)) / (1 - α), if each draft token is kept with probability α."""
    return float(gamma + 1) if rate == 1 else (1 - rate ** (gamma + 1)) / (1 - rate)


def rewind(cache: Any, length: Array) -> Any:
    """The cache with only its first `length [B]` tokens (prompts are right-padded: slot = position)."""
    length = length + cache.prefix
    kept = jnp.arange(cache.positions.shape[1]) < length[:, None]
    return replace(
        cache,
        positions=jnp.where(kept, cache.positions, -1),
        segments=jnp.where(kept, cache.segments, 0),
        next=length.astype(cache.next.dtype),
    )


def _distribution(logits: Array, inputs: Inputs, history: Array, length: Array, count: Array) -> tuple[Array, Array]:
    """Log-probabilities `[B, V]` of what `generate` would draw from (one-hot in greedy rows), and the top-2 margin."""
    knobs = inputs.knobs
    processed = warp(constrain(logits, knobs, history, length, count, inputs.source), knobs)
    best, ids = largest(processed, min(2, processed.shape[-1]))
    hot = jnp.where(jnp.arange(processed.shape[-1]) == ids[:, :1], 0.0, -jnp.inf)
    if knobs.temperature is None:
        return hot, best[:, 0] - best[:, -1]
    sampled = knobs.temperature > 0
    return jnp.where(sampled[:, None], jax.nn.log_softmax(processed), hot), jnp.where(
        sampled, jnp.inf, best[:, 0] - best[:, -1]
    )


def _noise(kind: Callable[[Array], Array], keys: Array, count: Array, stream: int) -> Array:
    """Noise for each row's token number `count`, the same in any batch."""
    return jax.vmap(lambda key, step: kind(jax.random.fold_in(jax.random.fold_in(key, step), stream)))(keys, count)


def _categorical(logp: Array, keys: Array, count: Array, stream: int) -> Array:
    noise = _noise(lambda key: jax.random.gumbel(key, logp.shape[-1:], jnp.float32), keys, count, stream)
    return jnp.argmax(logp + noise, axis=-1).astype(jnp.int32)


def _read(
    model: Any, params: Params, cache: Any, ids: Array, first: Array, live: Array, limit: int
) -> tuple[Any, Array]:
    """Runs ids `[B, T]` at positions first, first+1, ...: the cache and raw logits `[B, T, V]`.

    Positions past the model's end (only tokens that will be cut off have them) are fed as padding.
    """
    positions = first[:, None] + jnp.arange(ids.shape[1])
    real = live[:, None] & (positions < limit)
    feed = {"tokens": ids, "positions": jnp.minimum(positions, limit - 1), "segment_ids": real.astype(jnp.int32)}
    out = model.apply(params, feed, cache=cache)
    return out.cache, model.logits(params, out.hidden).astype(jnp.float32)


def _draft(
    model: Any, params: Params, inputs: Inputs, state: State, gamma: int, limit: int
) -> tuple[Any, Array, Array]:
    """γ drafted tokens behind each row: the draft's cache, the history with them, log q `[γ, B, V]`.

    One pass more than tokens, so that the cache also holds the last drafted token.
    """
    rows = jnp.arange(state.done.shape[0])

    def step(carry, i):
        cache, history = carry
        at = state.length + i
        last = jnp.take_along_axis(history, (at - 1)[:, None], axis=1)
        cache, logits = _read(model, params, cache, last, at - 1, ~state.done, limit)
        logq, _ = _distribution(logits[:, 0], inputs, history, at, state.count + i)
        token = _categorical(logq, inputs.keys, state.count + i, _DRAFT)
        return (cache, history.at[rows, at].set(token, mode="drop")), logq

    start = (state.cache.draft, state.history)
    (cache, history), logq = jax.lax.scan(step, start, jnp.arange(gamma + 1, dtype=jnp.int32))
    return cache, history, logq[:gamma]


def judge(logp: Array, logq: Array, drafted: Array, uniform: Array) -> tuple[Array, Array]:
    """How many drafted tokens are kept `[B]`, and the log-weights `[B, V]` from which the next token is drawn.

    Args:
      logp: `[γ + 1, B, V]` target. logq: `[γ, B, V]` draft. drafted: `[γ, B]`. uniform: `[γ, B]` noise in [0, 1).
    """
    gamma = len(logq)
    chosen = drafted[..., None]
    ratio = jnp.exp(jnp.take_along_axis(logp[:gamma], chosen, axis=-1) - jnp.take_along_axis(logq, chosen, axis=-1))[
        ..., 0
    ]
    kept = jnp.sum(jnp.cumprod(uniform < ratio, axis=0), axis=0, dtype=jnp.int32)
    p = jnp.take_along_axis(jnp.exp(logp), kept[None, :, None], axis=0)[0]
    # Behind the last drafted token the draft proposes nothing: q = 0 there and the rest is p itself.
    q = jnp.exp(jnp.concatenate([logq, jnp.full_like(logq[:1], -jnp.inf)]))
    rest = jnp.maximum(p - jnp.take_along_axis(q, kept[None, :, None], axis=0)[0], 0.0)
    # p = q up to rounding leaves no rest; then any refusal was rounding too, and p is right.
    rest = jnp.where(jnp.sum(rest, axis=-1, keepdims=True) > 0, rest, p)
    return kept, jnp.log(rest)


def _round(models: tuple[Any, Any], plan: Plan, params: tuple[Params, Params], inputs: Inputs, state: State) -> State:
    """One draft and one judgement: between 1 and γ + 1 new tokens in every running row."""
    gamma, limit = plan.spare - 1, plan.limit
    pair, knobs = state.cache, inputs.knobs
    draft_cache, history, logq = _draft(models[1], params[1], inputs, state, gamma, limit)
    steps = jnp.arange(gamma + 1, dtype=jnp.int32)
    ids = jnp.take_along_axis(history, state.length[:, None] - 1 + steps, axis=1)
    cache, logits = _read(models[0], params[0], pair.target, ids, state.length - 1, ~state.done, limit)
    logits = jnp.moveaxis(logits, 1, 0)  # [γ + 1, B, V]
    logp, margin = jax.vmap(lambda x, i: _distribution(x, inputs, history, state.length + i, state.count + i))(
        logits, steps
    )
    near = margin < plan.tie_tolerance
    uniform = jax.vmap(lambda i: _noise(jax.random.uniform, inputs.keys, state.count + i, _JUDGE))(steps[:gamma])
    kept, rest = judge(logp, logq, ids.T[1:], uniform)
    token = _categorical(rest, inputs.keys, state.count + kept, _REPLACE)
    history = history.at[jnp.arange(len(kept)), state.length + kept].set(token, mode="drop")

    emitted = jnp.take_along_axis(history, state.length[:, None] + steps, axis=1)  # [B, γ + 1], good up to `kept`
    stop = hits(emitted, knobs.stops) & (steps <= kept[:, None])
    new = jnp.minimum(kept + 1, knobs.budget - state.count)
    new = jnp.minimum(new, jnp.where(jnp.any(stop, axis=1), jnp.argmax(stop, axis=1) + 1, gamma + 1))
    new = jnp.where(state.done, 0, new).astype(jnp.int32)
    counted = steps < new[:, None]
    live = (~state.done).astype(jnp.int32)
    length, count = state.length + new, state.count + new
    stopped = state.stopped | jnp.any(stop & counted, axis=1)
    pair = Pair(
        target=rewind(cache, length - 1),
        draft=rewind(draft_cache, length - 1),
        rounds=pair.rounds + live,
        examined=pair.examined + live * jnp.minimum(kept + 1, gamma),
        accepted=pair.accepted + live * kept,
    )
    return replace(
        state,
        cache=pair,
        history=history,
        length=length,
        count=count,
        done=state.done | stopped | (count >= knobs.budget),
        stopped=stopped,
        near_ties=state.near_ties + jnp.sum(counted & near.T, axis=1, dtype=jnp.int32),
        step=state.step + 1,
        logprobs=_record(state, logits, emitted, counted),
    )


def _record(state: State, logits: Array, emitted: Array, counted: Array) -> Array | None:
    """The log-probabilities of the new tokens, written behind those of each row."""
    if state.logprobs is None:
        return None
    values = jax.vmap(logprob)(logits, emitted.T).T
    columns = jnp.where(counted, state.count[:, None] + jnp.arange(counted.shape[1]), state.logprobs.shape[1])
    return state.logprobs.at[jnp.arange(len(columns))[:, None], columns].set(values, mode="drop")


@partial(jax.jit, static_argnames=("models", "plan"))
def _prefill(
    models: tuple[Any, Any], plan: Plan, params: tuple[Params, Params], inputs: Inputs, batch: dict[str, Array]
) -> State:
    """Both models read the prompts; the first new token is the target's."""
    cache, hidden, length = read_prompts(models[0], plan, params[0], batch)
    draft, _, _ = read_prompts(models[1], plan, params[1], batch)
    zeros = jnp.zeros(length.shape, jnp.int32)
    state = blank_state(plan, Pair(cache, draft, zeros, zeros, zeros), batch["tokens"], length, inputs.knobs.budget)
    return take_token(plan, inputs, state, models[0].logits(params[0], hidden))


@partial(jax.jit, static_argnames=("models", "plan"), donate_argnames=("state",))
def _advance(
    models: tuple[Any, Any], plan: Plan, params: tuple[Params, Params], inputs: Inputs, state: State, limit: Array
) -> State:
    """Rounds until every row has ended or `limit` rounds have been made."""
    return jax.lax.while_loop(
        lambda state: jnp.any(~state.done) & (state.step < limit),
        lambda state: _round(models, plan, params, inputs, state),
        state,
    )


def speculate(
    model: Any,
    params: Params,
    draft_model: Any,
    draft_params: Params,
    prompts: layout.Rows | Mapping[str, Any],
    *,
    gamma: int = 4,
    max_new_tokens: int | Sequence[int] = 128,
    min_new_tokens: int | Sequence[int] = 0,
    sampling: Sampling | None = None,
    stop_tokens: Sequence[int] = (),
    stop_strings: Sequence[str] = (),
    tokenizer: Any = None,
    decoder_prompts: layout.Rows | None = None,
    key: Array | int = 0,
    seeds: Sequence[int] | None = None,
    logprobs: bool = True,
    tie_tolerance: float = 1e-4,
    on_piece: Callable[[Piece], None] | None = None,
    stride: int | None = None,
    pad: int = 0,
) -> Generation:
    """`generate` with a draft model: the same distribution (greedy: the same text) in fewer passes of the large model.

    Args:
      draft_model, draft_params: a cheaper model with the same vocabulary. gamma: tokens it drafts per round.
      stride: rounds (not tokens) between looks. The rest: as in `generate`.

    Returns:
      A `Generation` with `rounds`, `examined`, `accepted` and `acceptance_rate`. `near_ties` counts greedy steps only.

    Raises:
      ValueError: as `generate`, and for models whose vocabularies or kinds differ.
    """
    if gamma < 1:
        raise ValueError(f"gamma must be at least 1, got {gamma}")
    for name in ("vocab_size", "kind"):
        ours, theirs = getattr(model.config, name), getattr(draft_model.config, name)
        if ours != theirs:
            raise ValueError(f"the draft model's {name} is {theirs}, expected the model's {ours}")
    request = make_request(model, params, prompts, max_new_tokens, min_new_tokens, decoder_prompts)
    shorter = layout.context(draft_model)
    if shorter is not None:
        layout.check_rows(request.rows, draft_model.config.vocab_size, shorter)
        layout.check_room(request.rows, request.budget, shorter)
        request = replace(request, limit=min(shorter, request.limit or shorter))
    reader = Reader(request, tokenizer, stop_strings, on_piece)
    batch = make_batch(request)
    room, spare = request.room, gamma + 1
    slots = batch["tokens"].shape[1] + room + spare
    plan = Plan(slots, room, spare, logprobs, tie_tolerance=tie_tolerance, limit=min(slots, request.limit or slots))
    inputs = make_inputs(request, batch, sampling or Sampling(), stop_tokens, key, seeds)
    models = (model, draft_model)
    weights = (prepare(model, params), prepare(draft_model, draft_params))
    state = _prefill(models, plan, weights, inputs, batch)
    state = reader.follow(state, partial(_advance, models, plan, weights, inputs), reader.stride(stride))
    pair = state.cache
    counts = jax.device_get({"rounds": pair.rounds, "examined": pair.examined, "accepted": pair.accepted})
    return reader.result(state, plan, pad, **counts)
