"""Positions: sinusoidal (added), RoPE with its scalings (rotated), ALiBi and T5's relative buckets (biases).

B batch · T query length · S key length · N query heads · H head size · D model width
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from research.core.types import Array


def sinusoidal(positions: Int[Array, "..."], width: int, base: float = 10_000.0) -> Float[Array, "... {width}"]:
    """sin(p / base^(2i/D)) in the first half of the features, cos in the second: [...] -> [..., D] float32.

    See *Attention Is All You Need*, Vaswani et al., https://arxiv.org/abs/1706.03762 (the paper interleaves the two
    halves, which only permutes features).
    """
    if width % 2:
        raise ValueError(f"sinusoidal positions need an even width; given {width}")
    frequencies = base ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    angles = positions[..., None].astype(jnp.float32) * jnp.asarray(frequencies, jnp.float32)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


@dataclass(frozen=True)
class Rope:
    """Rotary positions: base `theta` and, for longer contexts than those trained on, a scaling.

    Attributes:
      scaling: "none"; "linear" (positions / factor); "ntk" (theta grown once so that the slowest frequency is
        stretched by `factor`); "dynamic" (the same, growing with the length once it passes `original_length`);
        "yarn" (frequencies interpolated by wavelength, and attention rescaled); "llama3" (by wavelength bands).
      original_length: the context that the model was trained on.
      attention_factor: YaRN's rescaling of queries and keys; None derives it from `factor`.
    """

    theta: float = 10_000.0
    scaling: str = "none"
    factor: float = 1.0
    original_length: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True


SCALINGS = ("none", "linear", "ntk", "dynamic", "yarn", "llama3")


def _yarn(rope: Rope, frequencies: np.ndarray, head_dim: int) -> np.ndarray:
    def boundary(rotations: float) -> float:
        return head_dim * math.log(rope.original_length / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = boundary(rope.beta_fast), boundary(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = np.clip((np.arange(head_dim // 2) - low) / max(high - low, 1e-3), 0, 1)
    return frequencies / rope.factor * ramp + frequencies * (1 - ramp)


def _llama3(rope: Rope, frequencies: np.ndarray) -> np.ndarray:
    wavelength = 2 * math.pi / frequencies
    turns = rope.original_length / wavelength
    smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    smooth = np.clip(smooth, 0, 1)
    return (1 - smooth) * frequencies / rope.factor + smooth * frequencies


def rope_frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    """Angular frequencies [H/2], float64, of every static scaling ("dynamic" starts as "none").

    See *RoFormer*, Su et al., https://arxiv.org/abs/2104.09864; *YaRN*, Peng et al., https://arxiv.org/abs/2309.00071;
    *The Llama 3 Herd of Models*, https://arxiv.org/abs/2407.21783.
    """
    if rope.scaling not in SCALINGS:
        raise ValueError(f"unknown RoPE scaling {rope.scaling!r}; have {list(SCALINGS)}")
    if rope.scaling in ("yarn", "llama3", "dynamic") and rope.original_length < 1:
        raise ValueError(f"RoPE scaling {rope.scaling!r} needs original_length; given {rope.original_length}")
    theta = rope.theta
    if rope.scaling == "ntk":
        theta = theta * rope.factor ** (head_dim / (head_dim - 2))
    frequencies = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if rope.scaling == "linear":
        return frequencies / rope.factor
    if rope.scaling == "yarn":
        return _yarn(rope, frequencies, head_dim)
    if rope.scaling == "llama3":
        return _llama3(rope, frequencies)
    return frequencies


def rope_tables(
    positions: Int[Array, "B T"], rope: Rope, head_dim: int
) -> tuple[Float[Array, "B T h"], Float[Array, "B T h"]]:
    """cos and sin of p·ω: positions [B, T] -> two arrays [B, T, H/2] in float32.

    Angles are float32 always: in bf16, position 257 is not position 256.
    """
    if rope.scaling == "dynamic":
        # Grows with the longest position of the batch, so it is computed, not folded.
        length = jnp.maximum(jnp.max(positions) + 1, rope.original_length).astype(jnp.float32)
        grown = rope.factor * length / rope.original_length - (rope.factor - 1)
        theta = rope.theta * grown ** (head_dim / (head_dim - 2))
        frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    else:
        frequencies = jnp.asarray(rope_frequencies(rope, head_dim), jnp.float32)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    scale = 1.0
    if rope.scaling == "yarn":
        derived = 0.1 * math.log(rope.factor) + 1.0 if rope.factor > 1 else 1.0
        scale = derived if rope.attention_factor is None else rope.attention_factor
    return jnp.cos(angles) * scale, jnp.sin(angles) * scale


def rotate(
    x: Float[Array, "B T N H"], tables: tuple[Float[Array, "B T h"], Float[Array, "B T h"]]
) -> Float[Array, "B T N H"]:
    """Each pair (x_i, x_{i+H/2}) turned by its angle: x [B, T, N, H], tables [B, T, H/2] -> [B, T, N, H]."""
    cos, sin = (table[:, :, None, :] for table in tables)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def alibi_slopes(heads: int) -> np.ndarray:
    """Geometric slopes 2^(-8n/N), n = 1..N; for a head count that is no power of two, the paper's interleaving.

    See *Train Short, Test Long*, Press, Smith, Lewis, https://arxiv.org/abs/2108.12409.
    """
    whole = 2 ** math.floor(math.log2(heads))
    slopes = 2.0 ** (-8.0 / whole * np.arange(1, whole + 1))
    if whole == heads:
        return slopes
    between = 2.0 ** (-4.0 / whole * np.arange(1, 2 * (heads - whole), 2))
    return np.concatenate([slopes, between])


def alibi_bias(
    query_positions: Int[Array, "B T"], key_positions: Int[Array, "B S"], heads: int
) -> Float[Array, "B {heads} T S"]:
    """-slope · (query position - key position): [B, T], [B, S] -> [B, N, T, S] float32."""
    distance = (key_positions[:, None, :] - query_positions[:, :, None]).astype(jnp.float32)
    return jnp.asarray(alibi_slopes(heads), jnp.float32)[None, :, None, None] * distance[:, None]


def relative_buckets(
    distance: Int[Array, "..."], *, bidirectional: bool, buckets: int = 32, furthest: int = 128
) -> Int[Array, "..."]:
    """T5's bucket of each key-minus-query distance: exact when near, logarithmic up to `furthest`, shared beyond.

    See *Exploring the Limits of Transfer Learning*, Raffel et al., https://arxiv.org/abs/1910.10683.
    """
    offset = jnp.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        offset = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = -jnp.minimum(distance, 0)
    exact = buckets // 2
    ratio = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact) / math.log(furthest / exact)
    far = jnp.minimum(exact + (ratio * (buckets - exact)).astype(jnp.int32), buckets - 1)
    return offset + jnp.where(distance < exact, distance, far)
