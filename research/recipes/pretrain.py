"""Pre-training, and every other loss that predicts tokens: causal, prefix, masked, span corruption, denoising.

One loss serves them all, because what differs between them (which tokens are given, which are asked for, who sees
whom) is in the batch: `tokens`, `targets`, `loss_mask`, `horizon`, `inputs`.

B batch · T length · S source length · V vocabulary
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from research.core import tree
from research.core.types import Array, Batch, Params
from research.models import Model, ModelConfig
from research.ops.cross_entropy import CHUNK, cross_entropy


def language_model_loss(
    model: Model, *, chunk: int = CHUNK, parts: Sequence[str] = ()
) -> Callable[[Params, Batch, Array | None], tuple[Array, dict[str, Any]]]:
    """-Σ mask · log p(target | batch), with its weight Σ mask and the accuracy of the argmax.

    The batch holds `targets` [B, T] (already shifted: position t predicts targets[t]) and `loss_mask` [B, T] beside
    the model's inputs. With an rng, dropout is on. `chunk` positions have their logits in memory at a time. Where the
    batch says of which part of a mixture each row is (`part` [B], an index into `parts`), "loss/<part>" are metrics.
    """

    def loss_fn(params: Params, batch: Batch, rng: Array | None) -> tuple[Array, dict[str, Any]]:
        output = model.apply(params, batch, rng=rng)
        features, weight, bias, cap = model.projection(params, output.hidden)
        sums = cross_entropy(features, weight, batch["targets"], batch["loss_mask"], bias=bias, cap=cap, chunk=chunk)
        metrics = {"accuracy": (sums.correct, sums.weight)}
        if parts and "part" in batch:
            weights = jnp.sum(batch["loss_mask"].astype(jnp.float32), axis=1)
            for i, name in enumerate(parts):
                mine = batch["part"] == i
                metrics[f"loss/{name}"] = (jnp.sum(sums.rows, where=mine), jnp.sum(weights, where=mine))
        return sums.nll, {"weight": sums.weight, "metrics": metrics}

    return loss_fn


def flops_per_token(config: ModelConfig, params: Params, batch: Mapping[str, Any]) -> float:
    """Model FLOPs of a training step per token of the batch (both sides of an encoder-decoder count).

    6 · matrix weights that a token meets + 12 · L · N · H · keys it sees (half of them under a causal mask); what
    rematerialisation computes again is not counted. See *PaLM*, Chowdhery et al., appendix B,
    https://arxiv.org/abs/2204.02311 (which counts the full square).

    params: arrays or shapes.
    """
    sides = {"decoder": "tokens", "encoder": "inputs" if config.kind == "encoder_decoder" else "tokens"}
    lengths = {side: batch[name].shape[1] for side, name in sides.items() if side in params}
    matrices = dict.fromkeys(lengths, 0)
    for path, leaf in tree.paths(params).items():
        side = path.split("/")[0]
        if side in matrices and path.endswith("kernel"):
            matrices[side] += math.prod(leaf.shape)
    total = 0.0
    for side, length in lengths.items():
        layers = config.n_layers if side == "decoder" else config.n_encoder_layers
        seen = length / 2 if side == "decoder" else length
        total += length * (6.0 * matrices[side] + 12.0 * layers * config.n_heads * config.head_dim * seen)
    if len(lengths) == 2:  # cross-attention: every target position sees every source position
        both = lengths["decoder"] * lengths["encoder"]
        total += 12.0 * config.n_layers * config.n_heads * config.head_dim * both
    total += 6.0 * config.vocab_size * config.d_model * batch["tokens"].shape[1]
    return total / sum(lengths.values())
