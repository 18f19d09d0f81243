"""Text from a model: prompts in, new tokens out.

B batch · T padded prompt length · N most new tokens
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp

from research.core import mesh as meshes
from research.core import tree
from research.core.types import Array, Params
from research.decoding import prompts as layout
from research.decoding.loop import Plan, State, advance, prefill
from research.decoding.reader import Reader
from research.decoding.request import Request, make_batch, make_inputs, make_request
from research.decoding.result import Generation, Piece
from research.decoding.sample import Sampling

_KERNELS = ("kernel", "embedding")


def prepare(model: Any, params: Params) -> Params:
    """The weights as decoding reads them: layers unstacked, plain kernels and tables in the compute type.

    `generate` does it by itself; do it once and pass the result when calling many times. Weights of other types (LoRA,
    int8, ...) are left as they are.
    """
    compute = model.policy.compute

    def cast(path, leaf):
        plain = path.rsplit("/", 1)[-1] in _KERNELS and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(compute) if plain and leaf.dtype != compute else leaf

    return tree.map_with_path(cast, tree.unstack(params))


def generate(
    model: Any,
    params: Params,
    prompts: layout.Rows | Mapping[str, Any],
    *,
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
    processed_logprobs: bool = False,
    alternatives: int = 0,
    tie_tolerance: float = 1e-4,
    bidirectional_prompt: bool = False,
    cache_dtype: str = "",
    on_piece: Callable[[Piece], None] | None = None,
    stride: int | None = None,
    pad: int = 0,
    width: int = 1,
    room: int = 1,
) -> Generation:
    """Continues every prompt: greedily, or as `sampling` says.

    Weights that lie on a mesh have the rows cut over its batch axes where those divide them.

    Args:
      model, params: from `research.models` and `research.interop`; `prepare(model, params)` may be passed as params.
      prompts: lists of token ids, or a batch with `tokens` and `segment_ids`; the encoder's input for an
        encoder-decoder, whose decoder starts from `decoder_prompts` (default: the model's decoder start token).
      max_new_tokens, min_new_tokens: limits, also per row.
      stop_tokens: ids that end a row. stop_strings: texts that end a row (need `tokenizer`); they are not returned.
      key, seeds: row i draws its noise from fold_in(key, seeds[i]) (default: its index) and its own step, so its text
        does not depend on the batch it is in.
      logprobs, processed_logprobs, alternatives, tie_tolerance: what is recorded, see `Generation`.
      bidirectional_prompt: the prompt's tokens see each other in both directions (prefix language models).
      cache_dtype: "int8" keeps keys and values in eight bits, with a scale for each token and head; "": as computed.
      on_piece: called with every row's new tokens and text every `stride` steps (default 1).
      pad: what stands in `tokens` after a row's end.
      width, room: prompts are padded to at least `width` tokens, and there is room for at least `room` new ones; calls
        that have both in common share a compiled program.

    Raises:
      ValueError: an empty prompt, an id outside the vocabulary, a prompt or a length beyond the model.
    """
    if cache_dtype not in ("", "int8"):
        raise ValueError(f"unknown cache_dtype {cache_dtype!r}; have ['', 'int8']")
    shape = width, room
    request = make_request(model, params, prompts, max_new_tokens, min_new_tokens, decoder_prompts, shape)
    reader = Reader(request, tokenizer, stop_strings, on_piece)
    plan, state, step = _begin(
        model,
        params,
        request,
        (sampling or Sampling(), stop_tokens, key, seeds),
        logprobs=logprobs,
        processed_logprobs=processed_logprobs,
        alternatives=min(alternatives, model.config.vocab_size),
        tie_tolerance=tie_tolerance,
        bidirectional_prompt=bidirectional_prompt,
        cache_dtype=cache_dtype,
    )
    return reader.result(reader.follow(state, step, reader.stride(stride)), plan, pad)


def pieces(
    model: Any,
    params: Params,
    prompt: Sequence[int],
    *,
    max_new_tokens: int = 128,
    sampling: Sampling | None = None,
    stop_tokens: Sequence[int] = (),
    stop_strings: Sequence[str] = (),
    tokenizer: Any = None,
    key: Array | int = 0,
) -> Iterator[Piece]:
    """The same text for one prompt, token by token; the model works only while somebody asks for the next piece.

    Raises:
      ValueError: as `generate`, before the first piece.
    """
    found: list[Piece] = []
    request = make_request(model, params, [prompt], max_new_tokens, 0, None)
    reader = Reader(request, tokenizer, stop_strings, found.append)
    _, state, step = _begin(model, params, request, (sampling or Sampling(), stop_tokens, key, None))
    state, running = reader.look(state)
    while True:
        yield from found
        found.clear()
        if not running:
            return
        state, running = reader.look(step(state, state.step + 1))


def _begin(
    model: Any, params: Params, request: Request, choice: tuple[Any, ...], **recorded: Any
) -> tuple[Plan, State, Callable[[State, Array], State]]:
    """The plan, the state after the prompts and its first tokens, and what runs it on to a limit."""
    batch = make_batch(request)
    plan = Plan(slots=batch["tokens"].shape[1] + request.room, room=request.room, **recorded)
    inputs = make_inputs(request, batch, *choice)
    params = prepare(model, params)
    batch, inputs = meshes.rows_beside(params, (batch, inputs), len(request.rows))
    return plan, prefill(model, plan, params, inputs, batch), partial(advance, model, plan, params, inputs)
