"""A call's prompts, limits and knobs: checked on the host, then turned into arrays.

B batch · T padded prompt length
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core.types import Array, Params
from research.decoding import prompts as layout
from research.decoding.loop import Inputs
from research.decoding.sample import Sampling, make_knobs, row_keys
from research.weights.prefix import prefix_length
from research.weights.prompts import virtual_ids


@dataclass
class Request:
    """One call's prompts and limits after checking, on the host."""

    rows: list[list[int]]  # what the decoder reads first
    sources: list[list[int]] | None  # what the encoder reads
    budget: np.ndarray
    least: np.ndarray
    limit: int | None  # the model's own length
    shape: tuple[int, int] = (1, 1)  # tokens of a prompt and new ones that there is room for at least

    @property
    def room(self) -> int:
        """How many new tokens there is room for."""
        return layout.bucket(max(self.shape[1], int(self.budget.max())))

    @property
    def prompts(self) -> list[list[int]]:
        return self.rows if self.sources is None else self.sources

    @property
    def leads(self) -> list[list[int]]:
        """What each row's text goes on from; nothing for an encoder-decoder, whose decoder's start is no text."""
        return self.rows if self.sources is None else [[] for _ in self.rows]


def make_request(
    model: Any,
    params: Params,
    prompts: layout.Rows | Mapping[str, Any],
    max_new_tokens: int | Sequence[int],
    min_new_tokens: int | Sequence[int],
    decoder_prompts: layout.Rows | None,
    shape: tuple[int, int] = (1, 1),
) -> Request:
    """Checks prompts and limits; raises ValueError with one sentence before anything is computed.

    Weights with a soft prompt have its virtual ids put in front of every prompt; a trained prefix takes its room.
    """
    config, limit = model.config, layout.context(model)
    virtual = virtual_ids(params)
    words = config.vocab_size + len(virtual)
    limit = None if limit is None else limit - prefix_length(params)
    if config.kind == "encoder":
        raise ValueError("an encoder alone produces no text: expected a decoder or an encoder-decoder model")
    if config.head != "lm":
        raise ValueError(f"the model's head is {config.head!r}: generation needs head='lm'")
    sources = None
    if layout.has_encoder(model):
        batch = isinstance(prompts, Mapping)
        sources = layout.as_rows(prompts, "inputs", "input_segment_ids") if batch else layout.as_rows(prompts)
        sources = [[*virtual, *row] if row else row for row in sources]
        layout.check_rows(sources, words, limit)
        if decoder_prompts is None and config.decoder_start_id < 0:
            raise ValueError("config.decoder_start_id is not set: give decoder_prompts")
        rows = layout.as_rows(decoder_prompts or [[config.decoder_start_id]] * len(sources))
        if len(rows) != len(sources):
            raise ValueError(f"{len(rows)} decoder_prompts for {len(sources)} prompts: expected one for each")
        layout.check_rows(rows, config.vocab_size, limit, "decoder prompt")
    elif decoder_prompts is not None:
        raise ValueError("decoder_prompts are for encoder-decoder models; this one has a decoder only")
    else:
        rows = [[*virtual, *row] if row else row for row in layout.as_rows(prompts)]
        layout.check_rows(rows, words, limit)
    budget = layout.per_row(max_new_tokens, len(rows), "max_new_tokens")
    least = layout.per_row(min_new_tokens, len(rows), "min_new_tokens")
    if np.any(least > budget):
        raise ValueError(f"min_new_tokens {min_new_tokens} exceeds max_new_tokens {max_new_tokens}")
    layout.check_room(rows, budget, limit)
    return Request(rows, sources, budget, least, limit, (len(virtual) + shape[0], shape[1]))


def make_batch(request: Request) -> dict[str, Array]:
    """Right-padded arrays of the prompts, each side in its bucket."""
    padded = lambda rows, width: layout.pad_right(rows, layout.padded_length(rows, request.limit, width))  # noqa: E731
    tokens, segments = padded(request.rows, request.shape[0] if request.sources is None else 1)
    batch = {"tokens": jnp.asarray(tokens), "segment_ids": jnp.asarray(segments)}
    if request.sources is not None:
        inputs, input_segments = padded(request.sources, request.shape[0])
        batch |= {"inputs": jnp.asarray(inputs), "input_segment_ids": jnp.asarray(input_segments)}
    return batch


def make_inputs(
    request: Request,
    batch: dict[str, Array],
    sampling: Sampling,
    stop_tokens: Sequence[int],
    key: Array | int,
    seeds: Sequence[int] | None,
) -> Inputs:
    """Knobs and row keys of one call as arrays."""
    rows = len(request.rows)
    ids = np.arange(rows) if seeds is None else np.asarray(seeds)
    if ids.shape != (rows,):
        raise ValueError(f"seeds has shape {ids.shape}, expected one whole number for each of {rows} rows")
    knobs = make_knobs(sampling, request.budget, request.least, stop_tokens)
    root = jax.random.key(key) if isinstance(key, int) else key
    source = None
    if knobs.encoder_repetition_penalty is not None and "inputs" in batch:
        source = (batch["inputs"], batch["input_segment_ids"])
    return Inputs(knobs, row_keys(root, jnp.asarray(ids, jnp.uint32)), source)
