"""Beam search: the K most probable texts found by extending K texts at a time.

B batch · K beams · S history length · N most new tokens · V vocabulary

Scores are Σ log p / length^penalty over the new tokens. When a row stops is decided as `transformers` does it, so that
the texts are the same:
  early_stopping=True: as soon as K texts have ended;
  early_stopping=False: when the best open text, at its present length, scores no better than the worst ended one;
  early_stopping="never": the same, but at the longest length it could still reach (where the penalty rewards length).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from research.core.types import Array, Params
from research.decoding import prompts as layout
from research.decoding.generate import prepare
from research.decoding.loop import Inputs, Plan, feed_last, hits, read_prompts
from research.decoding.request import Request, make_batch, make_inputs, make_request
from research.decoding.result import REASONS, Generation
from research.decoding.sample import Sampling, constrain, repeat_rows
from research.decoding.text import TextStream
from research.ops.largest import largest

LOST = -1e9  # the score of a text that does not exist; finite, so that differences stay numbers


@dataclass(frozen=True)
class Beams:
    """What decides the compiled program beside `Plan`."""

    size: int
    early_stopping: bool | str


@struct.dataclass
class Texts:
    """K texts of every row."""

    ids: Array  # [B, K, S] prompt and new tokens
    logprobs: Array  # [B, K, N] of the model's own distribution
    score: Array  # [B, K]
    count: Array  # [B, K] new tokens
    real: Array  # [B, K] whether there is such a text


@struct.dataclass
class Search:
    """What a step changes."""

    cache: Any  # rows B·K
    open: Texts
    ended: Texts
    active: Array  # [B]
    step: Array  # []


def _pick(texts: Texts, beams: Array) -> Texts:
    """The texts `beams [B, K']` of each row."""

    def take(x):
        return jnp.take_along_axis(x, beams.reshape(beams.shape + (1,) * (x.ndim - 2)), axis=1)

    return jax.tree.map(take, texts)


def _start(plan: Plan, beams: Beams, cache: Any, tokens: Array) -> Search:
    """One open text for each row (the prompt) and no ended one; the cache's rows repeated for the beams."""
    rows, K = tokens.shape[0], beams.size
    ids = jnp.repeat(jnp.pad(tokens, ((0, 0), (0, plan.room)))[:, None], K, axis=1)
    texts = Texts(
        ids=ids,
        logprobs=jnp.zeros((rows, K, plan.room), jnp.float32),
        score=jnp.full((rows, K), LOST, jnp.float32),
        count=jnp.zeros((rows, K), jnp.int32),
        real=jnp.zeros((rows, K), bool),
    )
    return Search(
        cache=jax.tree.map(lambda x: jnp.repeat(x, K, axis=0), cache),
        open=replace(texts, score=texts.score.at[:, 0].set(0.0)),
        ended=texts,
        active=jnp.ones((rows,), bool),
        step=jnp.zeros((), jnp.int32),
    )


def _extend(beams: Beams, inputs: Inputs, search: Search, logits: Array, length: Array) -> tuple[Texts, Array, Array]:
    """The best one-token extensions of the open texts: texts `[B, C]`, their beams and their tokens `[B, C]`.

    C is enough that K of them go on even if every stop token is among the candidates of every beam.
    """
    rows, K, S = search.open.ids.shape
    vocab = logits.shape[-1]
    flat = jnp.repeat(length, K) + search.step
    raw = jax.nn.log_softmax(logits.astype(jnp.float32))
    allowed = constrain(
        raw, inputs.knobs, search.open.ids.reshape(rows * K, S), flat, jnp.full_like(flat, search.step), inputs.source
    )
    total = search.open.score[:, :, None] + allowed.reshape(rows, K, vocab)
    stops = 0 if inputs.knobs.stops is None else len(inputs.knobs.stops)
    size = min(K * max(2, 1 + stops), K * vocab)
    score, index = largest(total.reshape(rows, K * vocab), size)
    beam, token = index // vocab, (index % vocab).astype(jnp.int32)
    texts = _pick(search.open, beam)
    row, column = jnp.arange(rows)[:, None], jnp.arange(size)[None]
    own = raw.reshape(rows, K, vocab)[row, beam, token]
    texts = replace(
        texts,
        ids=texts.ids.at[row, column, length[:, None] + search.step].set(token, mode="drop"),
        logprobs=texts.logprobs.at[:, :, search.step].set(own),
        score=score,
        count=texts.count + 1,
    )
    return texts, beam, token


def _step(beams: Beams, inputs: Inputs, penalty: Array, search: Search, logits: Array, length: Array) -> Search:
    """Extends every open text by a token, closes those that ended, and decides which rows go on."""
    K, budget = beams.size, inputs.knobs.budget[:: beams.size]
    texts, beam, token = _extend(beams, inputs, search, logits, length)
    taken = search.step + 1
    over = hits(token, inputs.knobs.stops) | (taken >= budget)[:, None]

    _, going = jax.lax.top_k(jnp.where(over, texts.score + LOST, texts.score), K)
    going_on = _pick(replace(texts, score=jnp.where(over, texts.score + LOST, texts.score)), going)
    source = jnp.take_along_axis(beam, going, axis=1) + K * jnp.arange(beam.shape[0])[:, None]
    # All texts of a row are equally long and read the same source: only the layers differ between its beams.
    cache = replace(search.cache, layers=jax.tree.map(lambda x: x[source.reshape(-1)], search.cache.layers))

    # Only the K best candidates may end: the others are there so that K texts can go on.
    ending = over & (jnp.arange(over.shape[1]) < K) & search.active[:, None]
    final = jnp.where(ending, texts.score / taken.astype(jnp.float32) ** penalty, LOST)
    both = jax.tree.map(
        lambda a, b: jnp.concatenate([a, b], axis=1), search.ended, replace(texts, score=final, real=ending)
    )
    ended = _pick(both, jax.lax.top_k(both.score, K)[1])

    longest = jnp.where(penalty > 0, budget, taken) if beams.early_stopping == "never" else taken
    hope = going_on.score[:, 0] / longest.astype(jnp.float32) ** penalty
    full = jnp.all(ended.real, axis=1)
    improvable = hope > jnp.where(full, jnp.min(ended.score, axis=1), LOST)
    active = search.active & improvable & ~jnp.all(over, axis=1)
    if beams.early_stopping is True:
        active = active & ~full
    return Search(cache, going_on, ended, active, taken)


@partial(jax.jit, static_argnames=("model", "plan", "beams"))
def _search(
    model: Any, plan: Plan, beams: Beams, params: Params, inputs: Inputs, batch: dict[str, Array], penalty: Array
) -> Texts:
    """Reads the prompts and searches until no row can improve: the ended texts, best first."""
    cache, hidden, length = read_prompts(model, plan, params, batch)
    logits = jnp.repeat(model.logits(params, hidden), beams.size, axis=0)
    first = _step(beams, inputs, penalty, _start(plan, beams, cache, batch["tokens"]), logits, length)
    lengths = jnp.repeat(length, beams.size)

    def body(search):
        history = search.open.ids.reshape(-1, search.open.ids.shape[-1])
        live = jnp.repeat(search.active, beams.size)
        cache, logits = feed_last(model, params, search.cache, history, lengths + search.step, live)
        return _step(beams, inputs, penalty, replace(search, cache=cache), logits, length)

    return jax.lax.while_loop(lambda search: jnp.any(search.active), body, first).ended


def beam_search(
    model: Any,
    params: Params,
    prompts: layout.Rows | Mapping[str, Any],
    *,
    beams: int = 4,
    returned: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    max_new_tokens: int | Sequence[int] = 128,
    min_new_tokens: int | Sequence[int] = 0,
    sampling: Sampling | None = None,
    stop_tokens: Sequence[int] = (),
    tokenizer: Any = None,
    decoder_prompts: layout.Rows | None = None,
    pad: int = 0,
) -> Generation:
    """The `returned` best texts of every prompt among those that a search with `beams` beams ends with.

    Args:
      beams: texts kept open. returned: texts given back for each prompt, best first, in successive rows.
      length_penalty: score = Σ log p / length^penalty; above 0 it rewards length, below it rewards shortness.
      early_stopping: True, False or "never", see the top of this file.
      sampling: its constraints (repetition_penalty, no_repeat_ngram, forced and suppressed tokens) apply; a temperature
        does not: the search is deterministic.
      The rest: as in `generate`.

    Raises:
      ValueError: as `generate`, and for beams, returned or early_stopping that make no sense.
    """
    if beams < 1 or not 1 <= returned <= beams:
        raise ValueError(f"expected 1 <= returned <= beams, got returned {returned} and beams {beams}")
    if early_stopping not in (True, False, "never"):
        raise ValueError(f"early_stopping must be True, False or 'never', got {early_stopping!r}")
    sampling = sampling or Sampling()
    if np.any(np.asarray(sampling.temperature) > 0):
        raise ValueError(f"beam search is deterministic: expected temperature 0, got {sampling.temperature}")
    request = make_request(model, params, prompts, max_new_tokens, min_new_tokens, decoder_prompts)
    if np.any(request.budget == 0):
        raise ValueError("beam search needs max_new_tokens of at least 1 in every row")
    batch = make_batch(request)
    room = layout.bucket(int(request.budget.max()))
    plan = Plan(slots=batch["tokens"].shape[1] + room, room=room)
    inputs = make_inputs(request, batch, sampling, stop_tokens, 0, None)
    source = inputs.source and jax.tree.map(lambda x: jnp.repeat(x, beams, axis=0), inputs.source)
    inputs = replace(inputs, knobs=repeat_rows(inputs.knobs, beams), source=source)
    texts = _search(
        model,
        plan,
        Beams(beams, early_stopping),
        prepare(model, params),
        inputs,
        batch,
        jnp.float32(length_penalty),
    )
    return _result(request, jax.device_get(texts), returned, stop_tokens, tokenizer, pad)


def _result(
    request: Request, texts: Texts, returned: int, stop_tokens: Sequence[int], tokenizer: Any, pad: int
) -> Generation:
    """The best texts of every row as rows of a `Generation`."""
    width = int(request.budget.max())
    rows = [(i, k) for i in range(len(request.rows)) for k in range(returned)]
    tokens = np.full((len(rows), width), pad, np.int32)
    logprobs = np.zeros((len(rows), width), np.float32)
    lengths, reasons, decoded = np.zeros(len(rows), np.int32), [], []
    for at, (i, k) in enumerate(rows):
        start, count = len(request.rows[i]), int(texts.count[i, k])
        new = np.asarray(texts.ids[i, k, start : start + count])
        tokens[at, :count], logprobs[at, :count], lengths[at] = new, texts.logprobs[i, k, :count], count
        stopped = count > 0 and int(new[-1]) in stop_tokens
        reasons.append(REASONS[2 if stopped else 1])
        if tokenizer is not None:
            stream = TextStream(tokenizer, request.rows[i] if request.sources is None else [])
            stream.push(new[: count - stopped].tolist())
            stream.read(final=True)
            decoded.append(stream.text)
    return Generation(
        tokens=tokens,
        lengths=lengths,
        reasons=reasons,
        prompts=[request.prompts[i] for i, _ in rows],
        logprobs=logprobs,
        texts=decoded if tokenizer is not None else None,
        scores=np.asarray([texts.score[i, k] for i, k in rows]),
    )
