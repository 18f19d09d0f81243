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
from research.decoding.text import Branches, TextStream, check_stop_strings
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
class Candidates:
    """The C best one-token extensions of a row's open texts."""

    texts: Texts  # [B, C]
    beam: Array  # [B, C] the open text that each one extends
    over: Array  # [B, C] whether it ends here


@struct.dataclass
class Search:
    """What a step changes."""

    cache: Any  # rows B·K
    length: Array  # [B] tokens of the prompt
    open: Texts
    ended: Texts
    active: Array  # [B]
    step: Array  # []


def _pick(texts: Texts, beams: Array) -> Texts:
    """The texts `beams [B, K']` of each row."""

    def take(x):
        return jnp.take_along_axis(x, beams.reshape(beams.shape + (1,) * (x.ndim - 2)), axis=1)

    return jax.tree.map(take, texts)


def _start(plan: Plan, beams: Beams, cache: Any, tokens: Array, length: Array) -> Search:
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
        length=length,
        open=replace(texts, score=texts.score.at[:, 0].set(0.0)),
        ended=texts,
        active=jnp.ones((rows,), bool),
        step=jnp.zeros((), jnp.int32),
    )


def _extend(beams: Beams, inputs: Inputs, search: Search, logits: Array) -> Candidates:
    """The best extensions by a token with raw logits `[B·K, V]`.

    C is enough that K of them go on even if every stop token is among the candidates of every beam.
    """
    rows, K, S = search.open.ids.shape
    vocab, knobs = logits.shape[-1], inputs.knobs
    flat = jnp.repeat(search.length, K) + search.step
    raw = jax.nn.log_softmax(logits.astype(jnp.float32))
    allowed = constrain(
        raw, knobs, search.open.ids.reshape(rows * K, S), flat, jnp.full_like(flat, search.step), inputs.source
    )
    total = search.open.score[:, :, None] + allowed.reshape(rows, K, vocab)
    stops = 0 if knobs.stops is None else len(knobs.stops)
    size = min(K * max(2, 1 + stops), K * vocab)
    score, index = largest(total.reshape(rows, K * vocab), size)
    beam, token = index // vocab, (index % vocab).astype(jnp.int32)
    texts = _pick(search.open, beam)
    row, column = jnp.arange(rows)[:, None], jnp.arange(size)[None]
    own = raw.reshape(rows, K, vocab)[row, beam, token]
    texts = replace(
        texts,
        ids=texts.ids.at[row, column, search.length[:, None] + search.step].set(token, mode="drop"),
        logprobs=texts.logprobs.at[:, :, search.step].set(own),
        score=score,
        count=texts.count + 1,
    )
    return Candidates(texts, beam, hits(token, knobs.stops) | (search.step + 1 >= knobs.budget[::K])[:, None])


def _choose(beams: Beams, inputs: Inputs, penalty: Array, search: Search, candidates: Candidates) -> Search:
    """Closes the candidates that are over, keeps the K best others open, and decides which rows go on."""
    K, budget = beams.size, inputs.knobs.budget[:: beams.size]
    texts, beam, over = candidates.texts, candidates.beam, candidates.over
    taken = search.step + 1

    _, going = jax.lax.top_k(jnp.where(over, texts.score + LOST, texts.score), K)
    going_on = _pick(replace(texts, score=jnp.where(over, texts.score + LOST, texts.score)), going)
    source = jnp.take_along_axis(beam, going, axis=1) + K * jnp.arange(beam.shape[0])[:, None]
    # All texts of a row are equally long and read the same source: only the layers differ between its beams.
    cache = replace(search.cache, layers=jax.tree.map(lambda x: x[source.reshape(-1)], search.cache.layers))

    # Only the K best candidates may end: the others are there so that K texts can go on. What extends a text that
    # has ended (kept open where too few others were left) is no text.
    best = (jnp.arange(over.shape[1]) < K) & (texts.score > LOST / 2)
    ending = over & best & search.active[:, None]
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
    return Search(cache, search.length, going_on, ended, active, taken)


def _first(
    model: Any, plan: Plan, beams: Beams, params: Params, inputs: Inputs, batch: dict[str, Array]
) -> tuple[Search, Candidates]:
    """Reads the prompts; the candidates are the first new tokens."""
    cache, hidden, length = read_prompts(model, plan, params, batch)
    search = _start(plan, beams, cache, batch["tokens"], length)
    return search, _extend(beams, inputs, search, jnp.repeat(model.logits(params, hidden), beams.size, axis=0))


def _next(model: Any, beams: Beams, params: Params, inputs: Inputs, search: Search) -> tuple[Search, Candidates]:
    """Reads the last token of every open text; the candidates are one token longer."""
    history = search.open.ids.reshape(-1, search.open.ids.shape[-1])
    length, live = jnp.repeat(search.length, beams.size), jnp.repeat(search.active, beams.size)
    cache, logits = feed_last(model, params, search.cache, history, length + search.step, live)
    return replace(search, cache=cache), _extend(beams, inputs, search, logits)


@partial(jax.jit, static_argnames=("model", "plan", "beams"))
def _search(
    model: Any, plan: Plan, beams: Beams, params: Params, inputs: Inputs, batch: dict[str, Array], penalty: Array
) -> Texts:
    """Searches until no row can improve, in one program: the ended texts, best first."""
    first = _choose(beams, inputs, penalty, *_first(model, plan, beams, params, inputs, batch))
    return jax.lax.while_loop(
        lambda search: jnp.any(search.active),
        lambda search: _choose(beams, inputs, penalty, *_next(model, beams, params, inputs, search)),
        first,
    ).ended


_first_alone = jax.jit(_first, static_argnames=("model", "plan", "beams"))
_next_alone = jax.jit(_next, static_argnames=("model", "beams"))
_choose_alone = jax.jit(_choose, static_argnames=("beams",))


def _search_text(
    model: Any,
    plan: Plan,
    beams: Beams,
    params: Params,
    inputs: Inputs,
    batch: dict[str, Array],
    penalty: Array,
    branches: Branches,
) -> Texts:
    """`_search` step by step: the host reads every candidate's text and ends those that complete a stop string."""
    search, candidates = _first_alone(model, plan, beams, params, inputs, batch)
    while True:
        ids, count = jax.device_get((candidates.texts.ids, candidates.texts.count))
        over = candidates.over | jnp.asarray(branches.grow(ids, count))
        search = _choose_alone(beams, inputs, penalty, search, replace(candidates, over=over))
        if not search.active.any():
            return search.ended
        search, candidates = _next_alone(model, beams, params, inputs, search)


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
    stop_strings: Sequence[str] = (),
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
      stop_strings: texts that end a beam, as a stop token does; every step then waits for the host to read the text.
      The rest: as in `generate`. Where fewer than `returned` texts exist, the last rows are empty, their score -inf.

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
    check_stop_strings(stop_strings, tokenizer)
    request = make_request(model, params, prompts, max_new_tokens, min_new_tokens, decoder_prompts)
    if np.any(request.budget == 0):
        raise ValueError("beam search needs max_new_tokens of at least 1 in every row")
    batch = make_batch(request)
    plan = Plan(slots=batch["tokens"].shape[1] + request.room, room=request.room)
    inputs = make_inputs(request, batch, sampling, stop_tokens, 0, None)
    source = inputs.source and jax.tree.map(lambda x: jnp.repeat(x, beams, axis=0), inputs.source)
    inputs = replace(inputs, knobs=repeat_rows(inputs.knobs, beams), source=source)
    search, weights, penalty = Beams(beams, early_stopping), prepare(model, params), jnp.float32(length_penalty)
    if stop_strings:
        branches = Branches(tokenizer, request.rows, request.leads, stop_strings)
        texts = _search_text(model, plan, search, weights, inputs, batch, penalty, branches)
    else:
        texts = _search(model, plan, search, weights, inputs, batch, penalty)
    return _result(request, jax.device_get(texts), returned, stop_tokens, stop_strings, tokenizer, pad)


def _result(
    request: Request,
    texts: Texts,
    returned: int,
    stop_tokens: Sequence[int],
    stop_strings: Sequence[str],
    tokenizer: Any,
    pad: int,
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
        reason = 2 if count > 0 and int(new[-1]) in stop_tokens else 1
        if tokenizer is not None:
            stream = TextStream(tokenizer, request.leads[i], stop_strings)
            stream.push(new[: count - (reason == 2)].tolist())
            stream.read(final=True)
            decoded.append(stream.text)
            reason = 3 if stream.stopped else reason
        reasons.append(REASONS[reason])
    return Generation(
        tokens=tokens,
        lengths=lengths,
        reasons=reasons,
        prompts=[request.prompts[i] for i, _ in rows],
        logprobs=logprobs,
        texts=decoded if tokenizer is not None else None,
        scores=np.asarray([texts.score[i, k] if texts.real[i, k] else -np.inf for i, k in rows]),
    )
