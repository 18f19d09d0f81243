"""A stack of blocks with its own positions and norms: the encoder, or the decoder.

Training scans runs of stacked layers; a tuple of per-layer trees (`tree.unstack`), or a cache, runs them one by one.

B batch · T query length · S key length · D model width · L layers
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from research.core import tree
from research.core.types import Array, Params
from research.models.blocks import Block, Context, norm
from research.models.config import ModelConfig
from research.models.layers import Table, dropout, dropout_key
from research.ops import linear as rules
from research.ops import positions as ops_positions
from research.ops.cache import KV, Cache
from research.ops.masks import Mask

REMAT = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Wanted(NamedTuple):
    """What a forward pass returns beside the result; static."""

    hidden_states: bool = False
    attentions: bool = False


class Extras(NamedTuple):
    """Optional results: each layer's input and the stack's output [L + 1, B, T, D], weights [L, B, N, T, S]."""

    hidden_states: Array | None = None
    attentions: Array | None = None
    cross_attentions: Array | None = None


def _prefix_length(layer: Any) -> int:
    return int(layer["attention"]["prefix"]["k"].shape[-3]) if "prefix" in layer["attention"] else 0


class Stack(nn.Module):
    """Positions, embedding norm, L blocks and a final norm.

    Attributes:
      decoder: causal, and cross-attending where the model has an encoder.
      unroll: layers per step of the scan; 1 keeps the program small, `n_layers` unrolls it.
      remat: which products the backward pass keeps: "none" keeps all, "dots", or "full" recomputes all.
    """

    config: ModelConfig
    dtype: np.dtype
    compute: np.dtype
    decoder: bool
    unroll: int = 1
    remat: str = "none"

    def setup(self) -> None:
        c = self.config
        if c.positions == "learned":
            rows = c.max_length + c.position_offset
            self.positions = Table(rows, c.d_model, self.dtype, c.init_std or 1.0)
        if c.positions == "relative":
            self.relative = Table(c.relative_buckets, c.n_heads, self.dtype, c.init_std or c.d_model**-0.5)
        if c.n_token_types:
            self.types = Table(c.n_token_types, c.d_model, self.dtype, c.init_std or 1.0)
        if c.embed_norm:
            self.embed_norm = norm(c, self.dtype)
        if c.final_norm:
            self.final_norm = norm(c, self.dtype)
        # A dict of runs, or a tuple with one tree per layer; whatever the tree holds is taken as it is.
        there = self.has_variable("params", tree.LAYERS)
        self.runs = self.get_variable("params", tree.LAYERS) if there else self.param(tree.LAYERS, self._init_layers)

    @property
    def _crosses(self) -> bool:
        return self.decoder and self.config.kind == "encoder_decoder"

    @property
    def _block(self) -> Block:
        return Block(self.config, self.dtype, self._crosses, parent=None)

    @property
    def n_layers(self) -> int:
        """How many layers this stack has."""
        beside = self.config.kind == "encoder_decoder" and not self.decoder
        return self.config.n_encoder_layers if beside else self.config.n_layers

    def prefixes(self) -> tuple[KV, ...]:
        """Every layer's trained prefix; empty where there is none."""
        if self.prefix_length == 0:
            return ()
        return tuple(KV(**layer["attention"]["prefix"]) for layer in self._each())

    @property
    def prefix_length(self) -> int:
        """How many trained keys stand in front of every sequence; the tokens' positions begin behind them."""
        layers = self.runs.values() if isinstance(self.runs, Mapping) else self.runs
        found = {_prefix_length(layer) for layer in layers}
        if len(found) > 1:
            raise ValueError(f"the layers have prefixes of {sorted(found)} tokens: all of a stack have the same")
        return found.pop()

    def _init_layers(self, key: Array) -> Params:
        c = self.config
        x = jnp.zeros((1, 1, c.d_model), self.compute)
        context = Context(mask=Mask(), source=x if self._crosses else None, cross_mask=Mask())
        one = lambda k: self._block.init(k, x, context)["params"]  # noqa: E731
        return {"00": jax.vmap(one)(jax.random.split(key, self.n_layers))}

    def _each(self) -> tuple[Params, ...]:
        """One tree per layer."""
        return tree.unstack({tree.LAYERS: self.runs})[tree.LAYERS]

    def embed(self, x: Array, positions: Array, token_types: Array | None) -> Array:
        """Token embeddings [B, T, D] with positions and types added, normed and dropped out."""
        c = self.config
        if c.positions == "learned":
            x = x + rules.embed(self.positions(), positions + c.position_offset).astype(x.dtype)
        elif c.positions == "sinusoidal":
            x = x + ops_positions.sinusoidal(positions, c.d_model).astype(x.dtype)
        if c.n_token_types:
            types = jnp.zeros_like(positions) if token_types is None else token_types
            x = x + rules.embed(self.types(), types).astype(x.dtype)
        if c.embed_norm:
            x = self.embed_norm(x)
        return dropout(x, c.embed_dropout, dropout_key(self)) if c.embed_dropout else x

    def _bias(self, q: Array, k: Array) -> Array | None:
        """The position bias [B, N, T, S] that all layers add to their scores."""
        c = self.config
        if c.positions == "alibi":
            return ops_positions.alibi_bias(q, k, c.n_heads)
        if c.positions == "relative":
            buckets = ops_positions.relative_buckets(
                k[:, None, :] - q[:, :, None],
                bidirectional=not self.decoder,
                buckets=c.relative_buckets,
                furthest=c.relative_distance,
            )
            return rules.embed(self.relative(), buckets).astype(jnp.float32).transpose(0, 3, 1, 2)
        return None

    def context(self, mask: Mask, positions: Array, key_positions: Array, **rest: Any) -> Context:
        """What the layers share, from positions [B, T] of the queries and [B, S] of the keys."""
        c = self.config
        rope = local = None
        if c.positions == "rope":
            rope = ops_positions.rope_tables(positions, c.rope, c.head_dim)
            if c.rope_local is not None:
                local = ops_positions.rope_tables(positions, c.rope_local, c.head_dim)
        return Context(mask=mask, bias=self._bias(positions, key_positions), rope=rope, rope_local=local, **rest)

    def __call__(
        self, x: Array, context: Context, cache: Cache | None, wanted: Wanted
    ) -> tuple[Array, tuple[KV, ...] | None, Extras]:
        """x [B, T, D] -> the last layer's output after the final norm, the layers' caches, and what was asked for."""
        kv = None
        if cache is None and isinstance(self.runs, Mapping):
            x, extras = self._scan(self.runs, x, context, wanted)
        else:
            x, kv, extras = self._one_by_one(x, context, cache, wanted)
        x = self.final_norm(x) if self.config.final_norm else x
        if extras.hidden_states is not None:
            extras = extras._replace(hidden_states=jnp.concatenate([extras.hidden_states, x[None]]))
        return x, kv, extras

    def _uniform_window(self) -> tuple[bool, int | None]:
        """Whether all layers slide alike, and their window."""
        slides = {self.config.slides(i) for i in range(self.n_layers)}
        return len(slides) == 1, (self.config.window if True in slides else None)

    def _scan(self, runs: Mapping[str, Any], x: Array, context: Context, wanted: Wanted) -> tuple[Array, Extras]:
        block, key = self._block, dropout_key(self)
        uniform, window = self._uniform_window()
        whole = jnp.int32(2**30)  # a window that hides nothing, for the full-attention layers of a mixed stack

        def body(x: Array, layer: tuple) -> tuple[Array, Extras]:
            params, local, key = layer
            rngs = {} if key is None else {"dropout": key}
            span = window if uniform else jnp.where(local, jnp.int32(window or 0), whole)
            y, _, (seen, crossed) = cast(
                Any, block.apply({"params": params}, x, context, local, span, weights=wanted.attentions, rngs=rngs)
            )
            return y, Extras(x if wanted.hidden_states else None, seen, crossed)

        if self.remat != "none":
            body = jax.checkpoint(body, policy=REMAT[self.remat], prevent_cse=False)
        collected = []
        for name, run in tree.ordered(runs):
            first, length = int(name), tree.run_length(run)
            local = jnp.array([self.config.slides(i) for i in range(first, first + length)])
            keys = (
                None if key is None else jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(first, first + length))
            )
            x, extras = jax.lax.scan(body, x, (run, local, keys), unroll=min(self.unroll, length))
            collected.append(extras)
        return x, jax.tree.map(lambda *parts: jnp.concatenate(parts), *collected)

    def _one_by_one(
        self, x: Array, context: Context, cache: Cache | None, wanted: Wanted
    ) -> tuple[Array, tuple[KV, ...] | None, Extras]:
        block, key = self._block, dropout_key(self)
        states, maps, crosses, written = [], [], [], []
        for i, params in enumerate(self._each()):
            states.append(x)
            local = self.config.slides(i)
            out = block.apply(
                {"params": params},
                x,
                context,
                local,
                self.config.window if local else None,
                kv=None if cache is None else cache.layers[i],
                cross_kv=None if cache is None or cache.cross is None else cache.cross[i],
                weights=wanted.attentions,
                rngs={} if key is None else {"dropout": jax.random.fold_in(key, i)},
            )
            x, kv, (seen, crossed) = cast(Any, out)
            written.append(kv)
            maps.append(seen)
            crosses.append(crossed)
        extras = Extras(
            jnp.stack(states) if wanted.hidden_states else None,
            jnp.stack(maps) if wanted.attentions else None,
            jnp.stack(crosses) if wanted.attentions and self._crosses else None,
        )
        return x, (None if cache is None else tuple(written)), extras

    def cross_keys_values(self, source: Array) -> tuple[KV, ...]:
        """Every layer's cross-attention keys and values of the encoder's output."""
        block = self._block
        each = [block.apply({"params": p}, source, method=Block.cross_keys_values) for p in self._each()]
        return tuple(cast(KV, kv) for kv in each)
