"""What stands on top of a stack: logits over the vocabulary, labels of a sequence or of tokens, one scalar.

B batch · T length · D model width · V vocabulary
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from research.core.types import Array
from research.models.blocks import fan_in, norm
from research.models.config import ModelConfig
from research.models.layers import Linear, Table, constant, dropout, dropout_key, weight
from research.ops.activations import activation


class Projection(NamedTuple):
    """The output layer taken apart, for losses that never hold all logits: cap(features weightᵀ + bias).

    Attributes:
      features: [..., D]. weight: [V, D], of any registered type. bias: [V] or None. cap: soft cap or None.
    """

    features: Array
    weight: Any
    bias: Array | None
    cap: float | None


class Head(nn.Module):
    """The config's head."""

    config: ModelConfig
    dtype: np.dtype

    def setup(self) -> None:
        c = self.config
        if c.head in ("lm", "mlm") and not c.tied:
            self.table = Table(c.vocab_size, c.d_model, self.dtype, fan_in(c, c.d_model))
        if c.head == "mlm" or (c.head == "lm" and c.lm_bias):
            self.bias = weight(self, "bias", constant(0.0), (c.vocab_size,), self.dtype)
        if c.head == "mlm":
            self.dense = Linear(c.d_model, True, self.dtype, fan_in(c, c.d_model))
            self.norm = norm(c, self.dtype)
        if c.head in ("sequence", "token", "scalar"):
            labels = 1 if c.head == "scalar" else c.n_labels
            self.output = Linear(labels, c.head_bias, self.dtype, fan_in(c, c.d_model))
            if c.head_dense:
                self.dense = Linear(c.d_model, True, self.dtype, fan_in(c, c.d_model))

    @nn.nowrap
    def _require(self, *heads: str) -> None:
        if self.config.head not in heads:
            raise ValueError(f"the model has head {self.config.head!r}; this needs one of {list(heads)}")

    def projection(self, hidden: Array, table: Any) -> Projection:
        """The output layer for hidden states [..., D], with `table` as its weight where it is tied."""
        self._require("lm", "mlm")
        c = self.config
        if c.head == "mlm":
            hidden = self.norm(activation(c.activation)(self.dense(hidden)))
        if c.logit_scale != 1:
            hidden = hidden * jnp.asarray(c.logit_scale, hidden.dtype)
        bias = self.bias if c.lm_bias or c.head == "mlm" else None
        return Projection(hidden, table if c.tied else self.table(), bias, c.logit_cap or None)

    def labels(self, hidden: Array, segments: Array | None, tokens: Array | None) -> Array:
        """Float32 label scores: [B, T, labels] of tokens, [B, labels] of sequences, or [B] scalars."""
        self._require("sequence", "token", "scalar")
        c = self.config
        if c.head != "token":
            hidden = jnp.take_along_axis(hidden, self._position(hidden, segments, tokens)[:, None, None], axis=1)[:, 0]
        rate = c.residual_dropout
        hidden = dropout(hidden, rate, dropout_key(self)) if rate else hidden
        if c.head_dense:
            hidden = jnp.tanh(self.dense(hidden))
            hidden = dropout(hidden, rate, dropout_key(self)) if rate else hidden
        scores = self.output(hidden).astype(jnp.float32)
        return scores[..., 0] if c.head == "scalar" else scores

    @nn.nowrap
    def _position(self, hidden: Array, segments: Array | None, tokens: Array | None) -> Array:
        """The position [B] that stands for each sequence."""
        B, T = hidden.shape[:2]
        pooling = self.config.pooling
        if pooling == "eos":
            if tokens is None:
                raise ValueError("pooling 'eos' needs the tokens")
            real = tokens == self.config.eos_id
        else:
            real = jnp.ones((B, T), bool) if segments is None else segments > 0
        if pooling == "first":
            return jnp.argmax(real, axis=1)
        return T - 1 - jnp.argmax(real[:, ::-1], axis=1)
