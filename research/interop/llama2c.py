"""llama2.c checkpoints (.bin), legacy v0 and v1, read and written.

V vocabulary · D model width · F feed-forward width · L layers · N query heads · K key/value heads · H head size

The format turns neighbouring pairs (2i, 2i+1) of a head; our RoPE turns (i, i + H/2). The two are the same model
with the rows of q and k in another order, so converting moves rows and changes no number.
See *llama2.c*, Andrej Karpathy, https://github.com/karpathy/llama2.c (export.py documents the layouts).
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

MAGIC = 0x616B3432  # "ak42"
_V1_HEADER = 256
_SIZES = struct.Struct("<7i")


@dataclass(frozen=True)
class Header:
    """Sizes of a llama2.c model; `tied` says that the output layer is the token embedding."""

    dim: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    seq_len: int
    tied: bool

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    def check(self, path: Path) -> None:
        sizes = (self.dim, self.hidden, self.layers, self.heads, self.kv_heads, self.vocab, self.seq_len)
        if min(sizes) <= 0 or self.dim % self.heads or self.heads % self.kv_heads or self.head_dim % 2:
            raise ValueError(f"{path} is not a llama2.c checkpoint of version 0 or 1: its header reads {self}")


def _read_header(path: Path, data: bytes) -> tuple[Header, int, int]:
    """(header, version, offset of the first weight)."""
    if len(data) < _SIZES.size:
        raise ValueError(f"{path} is too short for a llama2.c checkpoint: {len(data)} bytes")
    if struct.unpack_from("<I", data)[0] != MAGIC:
        *sizes, vocab, seq_len = _SIZES.unpack_from(data)
        return Header(*sizes, abs(vocab), seq_len, vocab > 0), 0, _SIZES.size
    version = struct.unpack_from("<i", data, 4)[0]
    if version != 1 or len(data) < _V1_HEADER:
        raise ValueError(f"{path} is a llama2.c checkpoint of version {version}; versions 0 and 1 are read")
    return Header(*_SIZES.unpack_from(data, 8), bool(data[8 + _SIZES.size])), 1, _V1_HEADER


def _tensors(h: Header, version: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in file order; names are ours, `rope` is the legacy file's table of cosines and sines."""
    L, D, F, Q, KV = h.layers, h.dim, h.hidden, h.dim, h.kv_heads * h.head_dim
    norms = [("attention_norm", (L, D)), ("mlp_norm", (L, D)), ("final_norm", (D,))]
    tokens = ("tokens", (h.vocab, D))
    attention = [("q", (L, Q, D)), ("k", (L, KV, D)), ("v", (L, KV, D)), ("o", (L, D, Q))]
    mlp = [("gate", (L, F, D)), ("down", (L, D, F)), ("up", (L, F, D))]
    if version == 1:
        yield from [*norms, tokens, *attention, *mlp]
    else:
        yield from [tokens, norms[0], *attention, norms[1], *mlp, norms[2]]
        yield "rope", (2, h.seq_len, h.head_dim // 2)
    if not h.tied:
        yield "output", (h.vocab, D)


def _halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k [L, heads*H, D] from pairs (2i, 2i+1) to halves (i, i + H/2)."""
    length, out, width = rows.shape
    pairs = rows.reshape(length, heads, out // heads // 2, 2, width)
    return pairs.swapaxes(2, 3).reshape(length, out, width)


def _pairs(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `_halves`."""
    length, out, width = rows.shape
    halves = rows.reshape(length, heads, 2, out // heads // 2, width)
    return halves.swapaxes(2, 3).reshape(length, out, width)


def _rope_table(h: Header) -> np.ndarray:
    """Cosines and sines [2, seq_len, H/2] that legacy files carry (readers recompute them)."""
    exponents = np.arange(0, h.head_dim, 2, dtype=np.float32) / np.float32(h.head_dim)
    frequencies = np.float32(1) / np.float32(10000.0) ** exponents
    angles = np.outer(np.arange(h.seq_len, dtype=np.float32), frequencies)
    return np.stack([np.cos(angles), np.sin(angles)])
