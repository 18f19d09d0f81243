"""The block: attention, cross-attention and a feed-forward layer around a residual stream.

B batch · T query length · S key length · D model width · N query heads · K key/value heads · H head size
"""

import math
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from research.core.types import Array
from research.models.config import ModelConfig
from research.models.layers import Linear, Norm, dropout, dropout_key
from research.ops import cache as caches
from research.ops.activations import activation
from research.ops.attention import attention
from research.ops.cache import KV
from research.ops.masks import Mask
from research.ops.positions import rotate


@struct.dataclass
class Context:
    """What all layers of a stack share, computed once.

    Attributes:
      mask: who sees whom among the stack's own tokens.
      bias: added to the scores of self-attention (ALiBi, T5), [B or 1, N, T, S].
      rope: cos and sin for ordinary layers; rope_local: for sliding layers, where they differ.
      slots: where new keys go in the cache, [B, T]; None without a cache.
      cross_mask: who sees whom in cross-attention. source: the encoder's output [B, S', D].
    """

    mask: Mask
    bias: Array | None = None
    rope: tuple[Array, Array] | None = None
    rope_local: tuple[Array, Array] | None = None
    slots: Any = None
    cross_mask: Any = None
    source: Any = None


def norm(config: ModelConfig, dtype: np.dtype, name: str | None = None) -> Norm:
    """The model's normalisation layer."""
    return Norm(config.norm, config.norm_eps, config.norm_bias, config.norm_offset, dtype, name=name)


def fan_in(config: ModelConfig, width: int) -> float:
    """Standard deviation of a weight whose input has this width."""
    return config.init_std or width**-0.5


class Attention(nn.Module):
    """Self-attention, or cross-attention over `context.source`."""

    config: ModelConfig
    dtype: np.dtype
    cross: bool = False

    def setup(self) -> None:
        c = self.config
        inner = c.n_heads * c.head_dim
        std = fan_in(c, c.d_model)
        # Without a factor on the scores (T5) the queries start small instead.
        self.q = Linear(inner, c.attention_bias, self.dtype, std * (c.head_dim**-0.5 if self._unscaled else 1.0))
        self.k = Linear(c.n_kv_heads * c.head_dim, c.attention_bias, self.dtype, std)
        self.v = Linear(c.n_kv_heads * c.head_dim, c.attention_bias, self.dtype, std)
        self.o = Linear(c.d_model, c.attention_out_bias, self.dtype, residual_std(c, inner))
        if c.qk_norm:
            self.q_norm = Norm("rmsnorm", c.norm_eps, False, c.norm_offset, self.dtype)
            self.k_norm = Norm("rmsnorm", c.norm_eps, False, c.norm_offset, self.dtype)

    @property
    def _unscaled(self) -> bool:
        return self.config.init_std == 0 and self.config.attention_scale == 1.0

    def keys_values(self, x: Array) -> KV:
        """Projected keys and values [B, S, K, H] of a sequence, before positions."""
        c = self.config
        shape = (*x.shape[:2], c.n_kv_heads, c.head_dim)
        k, v = self.k(x).reshape(shape), self.v(x).reshape(shape)
        return KV(self.k_norm(k) if c.qk_norm else k, v)

    def __call__(
        self,
        x: Array,
        context: Context,
        window: Array | int | None = None,
        rope: tuple[Array, Array] | None = None,
        kv: KV | None = None,
        weights: bool = False,
    ) -> tuple[Array, KV | None, Array | None]:
        """Attends from x [B, T, D]; returns the output, the layer's cache and the attention weights if asked for.

        `kv` is the layer's cache: it is written in self-attention and only read in cross-attention.
        """
        c = self.config
        B, T = x.shape[:2]
        q = self.q(x).reshape(B, T, c.n_heads, c.head_dim)
        if c.qk_norm:
            q = self.q_norm(q)
        if self.cross:
            mask, bias = context.cross_mask, None
            new = self.keys_values(context.source) if kv is None else kv
        else:
            mask, bias, new = context.mask, context.bias, self.keys_values(x)
            if rope is not None:
                q, new = rotate(q, rope), KV(rotate(new.k, rope), new.v)
            if kv is not None:
                new = caches.write(kv, new.k, new.v, context.slots)
            elif self.has_variable("params", "prefix"):  # a cache begins with it
                new = caches.with_prefix(new, KV(**cast(dict, self.get_variable("params", "prefix"))))
        out, seen = attention(
            q,
            *caches.read(new, q.dtype, mask.keys),
            mask,
            scale=c.scale,
            bias=bias,
            cap=c.attention_cap or None,
            window=window,
            dropout=c.attention_dropout,
            rng=dropout_key(self) if c.attention_dropout else None,
            weights=weights,
        )
        return self.o(out.reshape(B, T, -1)), (None if kv is None else new), seen


def residual_std(config: ModelConfig, width: int) -> float:
    """Initial standard deviation of projections into the residual stream: smaller the deeper the model (GPT-2)."""
    if not config.init_std:
        return width**-0.5
    return config.init_std / math.sqrt(2 * config.n_layers) if config.norm_position != "post" else config.init_std


class FeedForward(nn.Module):
    """down(act(up x)), or gated: down(act(gate x) · up x)."""

    config: ModelConfig
    dtype: np.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = self.config
        std = fan_in(c, c.d_model)
        act = activation(c.activation)
        h = Linear(c.d_ff, c.mlp_bias, self.dtype, std, name="up")(x)
        if c.gated:
            h = act(Linear(c.d_ff, c.mlp_bias, self.dtype, std, name="gate")(x)) * h
        else:
            h = act(h)
        return Linear(c.d_model, c.mlp_bias, self.dtype, residual_std(c, c.d_ff), name="down")(h)


class Block(nn.Module):
    """One layer of any family; where the norms stand is the config's choice."""

    config: ModelConfig
    dtype: np.dtype
    crosses: bool = False

    def setup(self) -> None:
        c = self.config
        self.attention = Attention(c, self.dtype)
        self.attention_norm = norm(c, self.dtype)
        self.mlp = FeedForward(c, self.dtype)
        if c.norm_position != "parallel":
            self.mlp_norm = norm(c, self.dtype)
        if c.norm_position == "sandwich":
            self.attention_post_norm, self.mlp_post_norm = norm(c, self.dtype), norm(c, self.dtype)
        if self.crosses:
            self.cross, self.cross_norm = Attention(c, self.dtype, cross=True), norm(c, self.dtype)

    def _drop(self, x: Array) -> Array:
        rate = self.config.residual_dropout
        return dropout(x, rate, dropout_key(self)) if rate else x

    def cross_keys_values(self, source: Array) -> KV:
        """The cross-attention's keys and values of the encoder's output, which never change while decoding."""
        return self.cross.keys_values(source)

    def __call__(
        self,
        x: Array,
        context: Context,
        local: Array | bool = False,
        window: Array | int | None = None,
        kv: KV | None = None,
        cross_kv: KV | None = None,
        weights: bool = False,
    ) -> tuple[Array, KV | None, tuple[Array | None, Array | None]]:
        """x [B, T, D] -> [B, T, D], the layer's cache, and (self, cross) attention weights if asked for."""
        c = self.config
        rope = _choose(context.rope, context.rope_local, local)
        if c.norm_position == "parallel":
            h = self.attention_norm(x)
            attended, kv, seen = self.attention(h, context, window, rope, kv, weights)
            return x + self._drop(attended + self.mlp(h)), kv, (seen, None)

        before = c.norm_position in ("pre", "sandwich")
        after = c.norm_position == "post"
        attended, kv, seen = self.attention(self.attention_norm(x) if before else x, context, window, rope, kv, weights)
        if c.norm_position == "sandwich":
            attended = self.attention_post_norm(attended)
        x = x + self._drop(attended)
        x = self.attention_norm(x) if after else x
        crossed = None
        if self.crosses:
            attended, _, crossed = self.cross(
                self.cross_norm(x) if before else x, context, kv=cross_kv, weights=weights
            )
            x = x + self._drop(attended)
            x = self.cross_norm(x) if after else x
        h = self.mlp(self.mlp_norm(x) if before else x)
        if c.norm_position == "sandwich":
            h = self.mlp_post_norm(h)
        x = x + self._drop(h)
        return (self.mlp_norm(x) if after else x), kv, (seen, crossed)


def _choose(
    everywhere: tuple[Array, Array] | None, sliding: tuple[Array, Array] | None, local: Array | bool
) -> tuple[Array, Array] | None:
    """The rotary tables of this layer; `local` is traced in a scan and a plain bool in an unrolled program."""
    if everywhere is None or sliding is None:
        return everywhere
    if isinstance(local, bool):
        return sliding if local else everywhere
    (cos_s, sin_s), (cos, sin) = sliding, everywhere
    return jnp.where(local, cos_s, cos), jnp.where(local, sin_s, sin)
