"""A model is `apply(params, batch)`: three kinds of architecture from one embedding table, one or two stacks, a head.

A batch is a dict of arrays:
  tokens [B, T]: input ids (of the decoder, where there is an encoder beside it). Required.
  positions [B, T]: growing along a row within a segment; default: counted from the start of each segment.
  segment_ids [B, T]: 0 is padding, equal numbers see each other; default: all one segment.
  horizon [B, T]: the last position each query may see; default: its own (causal) or no bound (encoder).
  token_types [B, T]: BERT's sentence A/B; default 0.
  inputs, input_positions, input_segment_ids [B, S]: the encoder's side of an encoder-decoder.

B batch · T length · S source length · D model width · V vocabulary · L layers
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from research.core.dtypes import Policy
from research.core.mesh import keep_rows
from research.core.types import Array, Batch, Params
from research.models.config import ModelConfig
from research.models.heads import Head, Projection
from research.models.layers import Table
from research.models.stack import REMAT, Extras, Stack, Wanted
from research.ops import cache as caches
from research.ops import linear as rules
from research.ops.attention import softcap
from research.ops.cache import Cache
from research.ops.masks import EVERYONE, Mask


@struct.dataclass
class Output:
    """What a forward pass returns.

    Attributes:
      hidden: [B, T, D], the last stack's output after its final norm, in the compute type.
      cache: the cache after this call; None if none was given.
      hidden_states: [L + 1, B, T, D], if asked for. attentions: [L, B, N, T, S], if asked for.
      cross_attentions: the same over the encoder's output.
      encoder_hidden: [B, S, D], of an encoder-decoder run without a cache.
      encoder_states, encoder_attentions: as above, of the encoder.
    """

    hidden: Array
    cache: Cache | None = None
    hidden_states: Array | None = None
    attentions: Array | None = None
    cross_attentions: Array | None = None
    encoder_hidden: Array | None = None
    encoder_states: Array | None = None
    encoder_attentions: Array | None = None


def segment_positions(segments: Array) -> Array:
    """Positions [B, T] counted from the start of each segment of equal ids."""
    index = jnp.broadcast_to(jnp.arange(segments.shape[1], dtype=jnp.int32), segments.shape)
    starts = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1)
    return index - jax.lax.cummax(jnp.where(starts, index, 0), axis=1)


class Transformer(nn.Module):
    """The Flax shell: one table of tokens, the stacks and the head."""

    config: ModelConfig
    policy: Policy
    unroll: int
    remat: str

    def setup(self) -> None:
        c, p = self.config, self.policy
        self.embed = _Embeddings(c, p.storage)
        stack = lambda decoder: Stack(c, p.storage, p.compute, decoder, self.unroll, self.remat)  # noqa: E731
        if c.kind != "decoder":
            self.encoder = stack(False)
        if c.kind != "encoder":
            self.decoder = stack(True)
        self.head = Head(c, p.storage)

    def _tokens(self, ids: Array) -> Array:
        x = keep_rows(rules.embed(self.embed.tokens(), ids).astype(self.policy.compute))
        return x if self.config.embed_scale == 1 else x * jnp.asarray(self.config.embed_scale, x.dtype)

    def _side(self, batch: Batch, prefix: str, begin: int) -> tuple[Array | None, Array]:
        """Segments and positions of one side of the batch, the first position being `begin`."""
        tokens = batch["inputs" if prefix else "tokens"]
        segments = batch.get(f"{prefix}segment_ids")
        positions = batch.get(f"{prefix}positions")
        if positions is None:
            plain = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
            positions = plain if segments is None else segment_positions(segments)
        return segments, positions + begin if begin else positions

    def _run(self, stack: Stack, batch: Batch, prefix: str, wanted: Wanted, **rest: Any) -> tuple[Array, Extras]:
        """One stack over one side of the batch, without a cache."""
        before = stack.prefix_length
        segments, positions = self._side(batch, prefix, before)
        given = before or segments is not None or batch.get(f"{prefix}positions") is not None or "horizon" in batch
        keys = _behind(positions, jnp.arange(before))
        horizon = None if prefix else batch.get("horizon")
        # A mask without arrays tells `ops.attention` that nothing but causality is at work.
        mask = Mask(
            causal=stack.decoder,
            query_positions=positions if given else None,
            key_positions=keys if given else None,
            query_segments=segments,
            key_segments=None if segments is None else _behind(segments, jnp.full(before, EVERYONE)),
            horizon=None if horizon is None else horizon + before,
            ordered=before == 0,
        )
        x = self._tokens(batch["inputs" if prefix else "tokens"])
        x = stack.embed(x, positions, None if prefix else batch.get("token_types"))
        x, _, extras = stack(x, stack.context(mask, positions, keys, **rest), None, wanted)
        return x, extras

    def __call__(self, batch: Batch, cache: Cache | None, wanted: Wanted) -> Output:
        """The forward pass; see `Model.apply`."""
        kind = self.config.kind
        if cache is not None:
            return self._cached(batch, cache, wanted)
        if kind == "encoder_decoder":
            source, encoded = self._run(self.encoder, batch, "input_", wanted)
            cross = Mask(query_segments=batch.get("segment_ids"), key_segments=batch.get("input_segment_ids"))
            cross = _complete(cross, batch["tokens"], batch["inputs"])
            hidden, extras = self._run(self.decoder, batch, "", wanted, cross_mask=cross, source=source)
            return Output(hidden, None, *extras, source, *encoded[:2])
        stack = self.encoder if kind == "encoder" else self.decoder
        hidden, extras = self._run(stack, batch, "", wanted)
        return Output(hidden, None, *extras)

    def _cached(self, batch: Batch, cache: Cache, wanted: Wanted) -> Output:
        """The decoder over new tokens behind those that the cache holds."""
        tokens = batch["tokens"]
        segments = batch.get("segment_ids")
        segments = jnp.ones_like(tokens) if segments is None else segments
        positions = batch.get("positions")
        positions = caches.next_positions(cache, segments) if positions is None else positions + cache.prefix
        horizon = None if "horizon" not in batch else batch["horizon"] + cache.prefix
        moved = caches.advance(cache, positions, segments)
        held = moved.positions[:, : cache.front], moved.segments[:, : cache.front]
        mask = Mask(True, positions, held[0], segments, held[1], horizon)
        cross = None
        if cache.cross_segments is not None:
            cross = Mask(query_segments=segments, key_segments=cache.cross_segments[:, : cache.front])
        context = self.decoder.context(
            mask, positions, held[0], slots=caches.slots(cache, tokens.shape[1]), cross_mask=cross
        )
        x = self.decoder.embed(self._tokens(tokens), positions, batch.get("token_types"))
        x, kv, extras = self.decoder(x, context, cache, wanted)
        return Output(x, replace(moved, layers=kv or ()), *extras)

    def projection(self, hidden: Array) -> Projection:
        """The output layer taken apart."""
        return self.head.projection(hidden, self.embed.tokens())

    def labels(self, hidden: Array, segments: Array | None, tokens: Array | None) -> Array:
        """Scores of the classification head."""
        return self.head.labels(hidden, segments, tokens)

    def source(self, batch: Batch) -> tuple[caches.KV, ...]:
        """Cross-attention keys and values of every decoder layer over the encoded inputs."""
        encoded, _ = self._run(self.encoder, batch, "input_", Wanted())
        return self.decoder.cross_keys_values(encoded)

    def prefixes(self) -> tuple[caches.KV, ...]:
        """The trained prefix of every decoder layer."""
        return self.decoder.prefixes()

    def everything(self, batch: Batch) -> Array:
        """Touches every weight, so that `init` creates them all."""
        out = self(batch, None, Wanted())
        if self.config.head == "none":
            return out.hidden
        if self.config.head in ("lm", "mlm"):
            return self.projection(out.hidden).features
        return self.labels(out.hidden, None, batch["tokens"])


class _Embeddings(nn.Module):
    """The token table, shared by both stacks and a tied output layer."""

    config: ModelConfig
    dtype: np.dtype

    def setup(self) -> None:
        c = self.config
        self.tokens = Table(c.vocab_size, c.d_model, self.dtype, c.init_std or 1.0)


def _behind(x: Array, first: Array) -> Array:
    """x [B, T] behind the numbers `first` [P] in every row."""
    if not first.shape[0]:
        return x
    return jnp.concatenate([jnp.broadcast_to(first.astype(x.dtype), (x.shape[0], len(first))), x], axis=1)


def _complete(mask: Mask, tokens: Array, inputs: Array) -> Mask:
    """Segments for both sides where only one side gave them."""
    if mask.query_segments is None and mask.key_segments is None:
        return mask
    q = jnp.ones_like(tokens) if mask.query_segments is None else mask.query_segments
    k = jnp.ones_like(inputs) if mask.key_segments is None else mask.key_segments
    return replace(mask, query_segments=q, key_segments=k)


@dataclass(frozen=True)
class Model:
    """Static choices and the pure functions that they determine; hashable, so it can be a static argument of `jit`.

    Attributes:
      config: what is computed. policy: in which precision.
      unroll: layers per step of the scan. remat: "none", "dots" or "full".
    """

    config: ModelConfig
    policy: Policy
    unroll: int = 1
    remat: str = "none"

    @property
    def _module(self) -> Transformer:
        return Transformer(self.config, self.policy, self.unroll, self.remat)

    def _call(self, params: Params, *args: Any, rng: Array | None = None, method: Any = None) -> Any:
        rngs = {} if rng is None else {"dropout": rng}
        return self._module.apply({"params": params}, *args, rngs=rngs, method=method)

    def init(self, key: Array) -> Params:
        """Fresh weights in the storage type."""
        blank = jnp.ones((1, 1), jnp.int32)
        batch = {"tokens": blank, "inputs": blank}
        return self._module.init(key, batch, method=Transformer.everything)["params"]

    def abstract(self) -> Params:
        """The weights' shapes and types, without allocating them."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def apply(
        self,
        params: Params,
        batch: Batch,
        *,
        cache: Cache | None = None,
        rng: Array | None = None,
        hidden_states: bool = False,
        attentions: bool = False,
    ) -> Output:
        """The forward pass.

        Args:
          batch: see the top of this file.
          cache: from `start`; the batch's tokens go behind what it holds.
          rng: a key turns dropout on.
          hidden_states: also return every layer's input.
          attentions: also return the attention weights (unfused path).

        Raises:
          ValueError: a cache for an encoder, or more tokens than a learned position table has rows.
        """
        c = self.config
        if cache is not None and c.kind == "encoder":
            raise ValueError("an encoder has no cache: it sees all tokens at once")
        for side in ("tokens", "inputs"):
            length = batch[side].shape[1] if side in batch else 0
            if c.positions == "learned" and length > c.max_length:
                raise ValueError(f"{length} {side} do not fit the model's max_length {c.max_length}")
        return self._call(params, batch, cache, Wanted(hidden_states, attentions), rng=rng)

    def projection(self, params: Params, hidden: Array) -> Projection:
        """The output layer taken apart, for `ops.cross_entropy` and `ops.token_logprobs`."""
        return self._call(params, hidden, method=Transformer.projection)

    def logits(self, params: Params, hidden: Array) -> Array:
        """Logits [..., V] in the output type, for hidden states [..., D]."""
        features, weight, bias, cap = self.projection(params, hidden)
        logits = rules.unembed(weight, features)
        logits = logits if bias is None else logits + bias.astype(logits.dtype)
        return softcap(logits, cap).astype(self.policy.output)

    def classify(self, params: Params, output: Output, batch: Batch, *, rng: Array | None = None) -> Array:
        """Label scores of the classification head: [B, labels], [B, T, labels], or [B] for a scalar head."""
        # The end token is looked for in what is classified: with an encoder beside it, the decoder reads it shifted.
        tokens = batch["inputs" if self.config.kind == "encoder_decoder" else "tokens"]
        args = (output.hidden, batch.get("segment_ids"), tokens)
        return self._call(params, *args, rng=rng, method=Transformer.labels)

    def start(self, params: Params, batch: Batch, length: int) -> Cache:
        """An empty cache with `length` slots per row; an encoder-decoder encodes `batch["inputs"]` into it.

        Raises:
          ValueError: the model is an encoder.
        """
        c = self.config
        if c.kind == "encoder":
            raise ValueError("an encoder has no cache: it sees all tokens at once")
        rows = batch["inputs" if c.kind == "encoder_decoder" else "tokens"].shape[0]
        prefixes = self._call(params, method=Transformer.prefixes)
        slots = length + (prefixes[0].k.shape[-3] if prefixes else 0)
        cache = caches.empty(rows, slots, c.n_layers, c.n_kv_heads, c.head_dim, self.policy.compute)
        cache = caches.begin(cache, prefixes) if prefixes else cache
        if c.kind == "decoder":
            return cache
        segments = batch.get("input_segment_ids")
        segments = jnp.ones_like(batch["inputs"]) if segments is None else segments
        return replace(cache, cross=self._call(params, batch, method=Transformer.source), cross_segments=segments)


def build(
    config: ModelConfig, *, policy: Policy | str = "f32", unroll: bool | int = False, remat: str = "none"
) -> Model:
    """The model of a config.

    Args:
      policy: a `Policy` or its text form ("f32", "bf16", ...).
      unroll: False scans layers one by one (small programs), True unrolls them all, a number unrolls that many.
      remat: what the backward pass recomputes: "none", "dots" (all but matrix products) or "full".
    """
    if remat not in REMAT:
        raise ValueError(f"unknown remat {remat!r}; have {sorted(REMAT)}")
    layers = max(config.n_layers, config.n_encoder_layers)
    steps = layers if unroll is True else max(1, int(unroll))
    return Model(config, Policy.parse(policy) if isinstance(policy, str) else policy, steps, remat)
