"""One dataclass that describes every model: a family is a row of choices in it, not a class."""

from dataclasses import dataclass, fields, replace
from typing import Any

from research.core.names import meant
from research.ops.activations import activation
from research.ops.positions import Rope

_CHOICES = {
    "kind": ("encoder", "decoder", "encoder_decoder"),
    "norm": ("layernorm", "rmsnorm"),
    "norm_position": ("pre", "post", "sandwich", "parallel"),
    "positions": ("none", "sinusoidal", "learned", "rope", "alibi", "relative"),
    "head": ("none", "lm", "mlm", "sequence", "token", "scalar"),
    "pooling": ("first", "last", "eos"),
}


@dataclass(frozen=True)
class ModelConfig:
    """Everything that determines a model's computation and the shapes of its weights.

    Attributes:
      family: the name of the interchange table (`research.interop`); it changes no computation.
      kind: "encoder" (bidirectional), "decoder" (causal) or "encoder_decoder".
      vocab_size: V. d_model: D. n_layers: L (of the decoder, where there are two stacks). n_heads: N.
      n_kv_heads: K, 0 means N. head_dim: H, 0 means D/N. d_ff: F.
      n_encoder_layers: layers of the encoder beside a decoder, 0 means `n_layers`.
      max_length: longest sequence; rows of a learned position table less `position_offset`.
      activation: by name in `research.ops.activations`. gated: down(act(gate x) · up x) instead of down(act(up x)).
      norm: which; norm_bias: LayerNorm with bias; norm_offset: RMSNorm multiplies by offset + scale (Gemma: 1).
      norm_position: "pre" (x + f(norm x)), "post" (norm(x + f x)), "sandwich" (x + norm(f(norm x))),
        "parallel" (x + attention(norm x) + mlp(norm x), one norm).
      embed_norm, final_norm: a norm after the embeddings, and after the last layer.
      positions: how; position_offset: rows skipped in a learned table (RoBERTa and BART: 2).
      n_token_types: BERT's segment embeddings; 0 for none.
      rope: for all layers; rope_local: for the sliding-window layers where they differ (Gemma 3).
      relative_buckets, relative_distance: T5's bias.
      window: positions that a sliding layer sees back; 0 for none. sliding: per layer, whether it slides; empty
        with a window: all do.
      attention_bias, attention_out_bias, mlp_bias: biases of q, k, v; of the attention output; of the MLP.
      qk_norm: RMSNorm of each query and key head (Qwen 3, Gemma 3).
      attention_scale: factor on the scores, 0 means H^-½. attention_cap, logit_cap: soft caps, 0 for none.
      embed_scale: factor on the embeddings; logit_scale: factor on the features before the output layer.
      tied: the output layer is the embedding table. lm_bias: the output layer has a bias.
      head: "lm", "mlm" (transform, norm, tied output), "sequence" and "token" (labels), "scalar" (one number per
        sequence: rewards, values), "none".
      pooling: which position represents a sequence; head_dense: a tanh layer before the labels; head_bias: labels
        have a bias; n_labels: how many.
      embed_dropout, attention_dropout, residual_dropout: rates, applied when a key is passed.
      init_std: standard deviation of initial weights; 0 means 1/√(input width), with unit embeddings.
      pad_id, bos_id, eos_id, decoder_start_id: special tokens, -1 where the model has none.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    max_length: int = 2048
    family: str = "llama"
    kind: str = "decoder"
    n_kv_heads: int = 0
    head_dim: int = 0
    n_encoder_layers: int = 0
    activation: str = "gelu"
    gated: bool = False
    norm: str = "layernorm"
    norm_eps: float = 1e-5
    norm_bias: bool = True
    norm_offset: float = 0.0
    norm_position: str = "pre"
    embed_norm: bool = False
    final_norm: bool = True
    positions: str = "learned"
    position_offset: int = 0
    n_token_types: int = 0
    rope: Rope = Rope()
    rope_local: Rope | None = None
    relative_buckets: int = 32
    relative_distance: int = 128
    window: int = 0
    sliding: tuple[bool, ...] = ()
    attention_bias: bool = True
    attention_out_bias: bool = True
    mlp_bias: bool = True
    qk_norm: bool = False
    attention_scale: float = 0.0
    attention_cap: float = 0.0
    logit_cap: float = 0.0
    embed_scale: float = 1.0
    logit_scale: float = 1.0
    tied: bool = True
    lm_bias: bool = False
    head: str = "lm"
    pooling: str = "last"
    head_dense: bool = False
    head_bias: bool = True
    n_labels: int = 2
    embed_dropout: float = 0.0
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    init_std: float = 0.02
    pad_id: int = -1
    bos_id: int = -1
    eos_id: int = -1
    decoder_start_id: int = -1

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not one of {list(allowed)}")
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; given {getattr(self, name)}")
        activation(self.activation)
        if not self.head_dim:
            if self.d_model % self.n_heads:
                raise ValueError(f"d_model {self.d_model} does not divide into n_heads {self.n_heads}; set head_dim")
            object.__setattr__(self, "head_dim", self.d_model // self.n_heads)
        object.__setattr__(self, "n_kv_heads", self.n_kv_heads or self.n_heads)
        object.__setattr__(self, "n_encoder_layers", self.n_encoder_layers or self.n_layers)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is no multiple of n_kv_heads {self.n_kv_heads}")
        if self.positions == "rope" and self.head_dim % 2:
            raise ValueError(f"RoPE needs an even head_dim; given {self.head_dim}")
        if self.sliding and len(self.sliding) != self.n_layers:
            raise ValueError(f"sliding has {len(self.sliding)} entries for n_layers {self.n_layers}")
        if any(self.sliding) and not self.window:
            raise ValueError("sliding layers need a window; given window 0")

    @property
    def scale(self) -> float:
        """The factor on attention scores."""
        return self.attention_scale or self.head_dim**-0.5

    def slides(self, layer: int) -> bool:
        """Whether a layer sees only `window` positions back."""
        return self.window > 0 and (self.sliding[layer] if self.sliding else True)

    def replace(self, **changes: Any) -> "ModelConfig":
        """A copy with some fields changed; a wrong name is an error that offers the nearest ones.

        Derived fields follow: a new width or head count recomputes `head_dim`, a new head count `n_kv_heads`, a new
        depth cuts or repeats the pattern of sliding layers, unless they are given too.
        """
        check_names(changes)
        if {"d_model", "n_heads"} & set(changes) and self.head_dim * self.n_heads == self.d_model:
            changes.setdefault("head_dim", 0)
        if "n_heads" in changes and self.n_kv_heads == self.n_heads:
            changes.setdefault("n_kv_heads", 0)
        if "n_layers" in changes:
            if self.n_encoder_layers == self.n_layers:
                changes.setdefault("n_encoder_layers", 0)
            if self.sliding:
                n = changes["n_layers"]
                changes.setdefault("sliding", tuple(self.sliding[i % len(self.sliding)] for i in range(n)))
        return replace(self, **changes)


def check_names(names: Any) -> None:
    """Raises a ValueError with the nearest field for every name that is no field of `ModelConfig`."""
    known = [field.name for field in fields(ModelConfig)]
    for name in names:
        if name not in known:
            raise ValueError(f"unknown model field {name!r}{meant(name, known) or f'; have {known}'}")
