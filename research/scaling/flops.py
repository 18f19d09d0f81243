"""Floating-point operations of a model by exact formula: one multiplication and one addition are two.

B rows · T length · S source length · D model width · F feed-forward width · N query heads · K key heads · H head size
V vocabulary · L layers
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from research.models import ModelConfig


def forward(config: ModelConfig, length: int, *, source: int = 0, seen: bool = False) -> Counter[str]:
    """FLOPs of one sequence by part: "projections", "scores", "softmax", "values", "mlp", "head".

    2 · (inputs · outputs) of every matrix that a token meets; 2 T S N H each for scores and values; 3 N T S for the
    softmax. Norms, activations and biases are left out. See *Training Compute-Optimal Large Language Models*,
    Hoffmann et al., appendix F, https://arxiv.org/abs/2203.15556.

    source: length of an encoder-decoder's inputs, 0 means T. seen: only keys that a query sees (causality, windows)
    instead of all of them, as papers count.
    """
    source = source or length
    decodes = config.kind != "encoder"
    total: Counter[str] = Counter()
    if config.kind == "encoder_decoder":
        for _ in range(config.n_encoder_layers):
            total += _attention(config, source, source, source * source) + _mlp(config, source)
    for layer in range(config.n_layers):
        pairs = _pairs(config, layer, length, decodes) if seen else length * length
        total += _attention(config, length, length, pairs) + _mlp(config, length)
        if config.kind == "encoder_decoder":
            total += _attention(config, length, source, length * source)
    total["head"] = _head(config, length)
    return total


def training(
    config: ModelConfig, length: int, *, source: int = 0, seen: bool = False, remat: str = "none", frozen: bool = False
) -> float:
    """FLOPs of forward and backward pass of one sequence: 3 · forward, the gradient of a product being two products.

    remat: "full" computes the layers once more, "dots" their scores and values. frozen: no weight but those of small
    adapters learns, so products with weights have one product in the backward pass: 2 · forward.
    """
    parts = forward(config, length, source=source, seen=seen)
    again = {"none": (), "dots": ("scores", "softmax", "values"), "full": tuple(set(parts) - {"head"})}[remat]
    weighted = ("projections", "mlp", "head")
    total = sum(count * (2 if frozen and name in weighted else 3) for name, count in parts.items())
    return float(total + sum(parts[name] for name in again))


def training_per_token(config: ModelConfig, batch: Mapping[str, Any]) -> float:
    """Model FLOPs of a training step per token of the batch (both sides of an encoder-decoder count), of keys that
    are seen; what rematerialisation computes again is not counted."""
    length = batch["tokens"].shape[-1]
    source = batch["inputs"].shape[-1] if config.kind == "encoder_decoder" else 0
    return training(config, length, source=source, seen=True) / (length + source)


def _pairs(config: ModelConfig, layer: int, length: int, causal: bool) -> int:
    """Pairs of a query and a key that it sees."""
    back = min(config.window if config.slides(layer) else length, length)
    behind = back * (back + 1) // 2 + (length - back) * back
    return behind if causal else 2 * behind - length if config.slides(layer) else length * length


def _attention(config: ModelConfig, queries: int, keys: int, pairs: int) -> Counter[str]:
    """One attention layer whose queries and keys are projected from so many positions."""
    inner, shared = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    return Counter(
        projections=2 * config.d_model * (2 * queries * inner + 2 * keys * shared),
        scores=2 * pairs * inner,
        softmax=3 * pairs * config.n_heads,
        values=2 * pairs * inner,
    )


def _mlp(config: ModelConfig, length: int) -> Counter[str]:
    return Counter(mlp=2 * length * config.d_model * config.d_ff * (3 if config.gated else 2))


def _head(config: ModelConfig, length: int) -> int:
    """The output layer, or the layers in front of labels."""
    width = config.d_model
    if config.head in ("lm", "mlm"):
        return 2 * length * width * (config.vocab_size + (width if config.head == "mlm" else 0))
    if config.head == "none":
        return 0
    labels = 1 if config.head == "scalar" else config.n_labels
    positions = length if config.head == "token" else 1
    return 2 * positions * width * (labels + (width if config.head_dense else 0))
