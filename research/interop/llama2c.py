"""llama2.c checkpoints (.bin), legacy v0 and v1, read and written.

V vocabulary · D model width · F feed-forward width · L layers · N query heads · K key/value heads · H head size

The format turns neighbouring pairs (2i, 2i+1) of a head; our RoPE turns (i, i + H/2). The two are the same model
with the rows of q and k in another order, so converting moves rows and changes no number.
See *llama2.c*, Andrej Karpathy, https://github.com/karpathy/llama2.c (export.py documents the layouts).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core import tree
from research.core.types import Params
from research.models import ModelConfig

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
        dim, hidden, layers, heads, kv_heads, vocab, seq_len = _SIZES.unpack_from(data)
        return Header(dim, hidden, layers, heads, kv_heads, abs(vocab), seq_len, vocab > 0), 0, _SIZES.size
    version = struct.unpack_from("<i", data, 4)[0]
    if version != 1 or len(data) < _V1_HEADER:
        raise ValueError(f"{path} is a llama2.c checkpoint of version {version}; versions 0 and 1 are read")
    dim, hidden, layers, heads, kv_heads, vocab, seq_len = _SIZES.unpack_from(data, 8)
    tied = bool(data[8 + _SIZES.size])
    return Header(dim, hidden, layers, heads, kv_heads, vocab, seq_len, tied), 1, _V1_HEADER


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
    angles = np.outer(np.arange(h.seq_len, dtype=np.float32), frequencies).astype(np.float64)
    return np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


# The weights of one layer under our names, all kept as [out, in] in the file.
_KERNELS = {"q": "attention/q", "k": "attention/k", "v": "attention/v", "o": "attention/o"}
_KERNELS |= {"gate": "mlp/gate", "down": "mlp/down", "up": "mlp/up"}


def _config(h: Header) -> ModelConfig:
    return ModelConfig(
        vocab_size=h.vocab,
        d_model=h.dim,
        n_layers=h.layers,
        n_heads=h.heads,
        n_kv_heads=h.kv_heads,
        d_ff=h.hidden,
        max_length=h.seq_len,
        activation="silu",
        gated=True,
        norm="rmsnorm",
        norm_eps=1e-5,
        positions="rope",
        attention_bias=False,
        attention_out_bias=False,
        mlp_bias=False,
        tied=h.tied,
        head_bias=False,
        bos_id=1,
        eos_id=2,
    )


def load_llama2c(path: str | Path) -> tuple[ModelConfig, Params]:
    """The config and float32 parameters of a llama2.c checkpoint, legacy or v1.

    Raises:
      FileNotFoundError: no such file.
      ValueError: another version, or a file that is shorter or longer than its header says.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no llama2.c checkpoint at {path}")
    data = path.read_bytes()
    h, version, offset = _read_header(path, data)
    h.check(path)
    table = list(_tensors(h, version))
    expected = offset + 4 * sum(int(np.prod(shape)) for _, shape in table)
    if len(data) != expected:
        raise ValueError(f"{path} has {len(data)} bytes; its header {h} calls for {expected}")
    tensors: dict[str, np.ndarray] = {}
    for name, shape in table:
        tensors[name] = np.frombuffer(data, "<f4", int(np.prod(shape)), offset).reshape(shape)
        offset += tensors[name].nbytes
    return _config(h), jax.tree.map(jnp.asarray, _to_params(h, tensors))


def _to_params(h: Header, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    turned = tensors | {"q": _halves(tensors["q"], h.heads), "k": _halves(tensors["k"], h.kv_heads)}
    kernel = {name: {"kernel": turned[name].swapaxes(1, 2)} for name in _KERNELS}
    layers = {
        "attention": {name: kernel[name] for name in "qkvo"},
        "attention_norm": {"scale": tensors["attention_norm"]},
        "mlp": {name: kernel[name] for name in ("up", "gate", "down")},
        "mlp_norm": {"scale": tensors["mlp_norm"]},
    }
    decoder = {"layers": {"00": layers}, "final_norm": {"scale": tensors["final_norm"]}}
    params: dict[str, Any] = {"embed": {"tokens": {"embedding": tensors["tokens"]}}, "decoder": decoder}
    return params if h.tied else params | {"head": {"table": {"embedding": tensors["output"]}}}


# Names, token ids, training-only rates and fields of other heads: the format has no place for them and needs none.
_FREE = frozenset(
    (
        *("family", "bos_id", "eos_id", "pad_id", "decoder_start_id", "init_std", "norm_bias"),
        *("pooling", "head_bias", "head_dense", "n_labels"),
        *("embed_dropout", "attention_dropout", "residual_dropout"),
    )
)


def _header_of(config: ModelConfig) -> Header:
    """The header of a config, or one error that names what the format cannot hold."""
    h = Header(
        config.d_model,
        config.d_ff,
        config.n_layers,
        config.n_heads,
        config.n_kv_heads,
        config.vocab_size,
        config.max_length,
        config.tied,
    )
    want = _config(h)
    names = [f.name for f in fields(ModelConfig) if f.name not in _FREE]
    wrong = [f for f in names if getattr(config, f) != getattr(want, f)]
    if wrong:
        said = ", ".join(f"{f} = {getattr(config, f)!r} (it has {getattr(want, f)!r})" for f in wrong)
        raise ValueError(f"the llama2.c format cannot hold {said}")
    return h


def save_llama2c(path: str | Path, config: ModelConfig, params: Params, *, version: int = 1) -> Path:
    """Writes a llama2.c checkpoint of version 1, or 0 (the legacy format), in float32.

    Raises:
      ValueError: a choice of the config that the format has no room for, or another version.
    """
    if version not in (0, 1):
        raise ValueError(f"llama2.c versions 0 and 1 are written; given {version}")
    h = _header_of(config)
    tensors = _from_params(h, tree.stack(params))
    sizes = (h.dim, h.hidden, h.layers, h.heads, h.kv_heads)
    if version == 0:
        head = _SIZES.pack(*sizes, h.vocab if h.tied else -h.vocab, h.seq_len)
    else:
        head = struct.pack("<Ii", MAGIC, 1) + _SIZES.pack(*sizes, h.vocab, h.seq_len) + bytes([h.tied])
        head = head.ljust(_V1_HEADER, b"\0")
    with Path(path).open("wb") as file:
        file.write(head)
        for name, shape in _tensors(h, version):
            if tensors[name].shape != shape:
                raise ValueError(f"{name} has shape {tensors[name].shape}; the config calls for {shape}")
            file.write(np.ascontiguousarray(tensors[name], dtype="<f4").tobytes())
    return Path(path)


def _from_params(h: Header, params: Params) -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = {}
    for path, leaf in tree.paths(params).items():
        name, host = tree.generic(path), np.asarray(leaf, np.float32)
        # A stack that was cut into runs is one table in the file.
        weights[name] = np.concatenate([weights[name], host]) if name in weights else host
    layers = "decoder/layers/"
    tensors = {name: weights[f"{layers}{ours}/kernel"].swapaxes(1, 2) for name, ours in _KERNELS.items()}
    tensors |= {"q": _pairs(tensors["q"], h.heads), "k": _pairs(tensors["k"], h.kv_heads)}
    tensors |= {name: weights[f"{layers}{name}/scale"] for name in ("attention_norm", "mlp_norm")}
    tensors |= {"final_norm": weights["decoder/final_norm/scale"], "tokens": weights["embed/tokens/embedding"]}
    tensors["rope"] = _rope_table(h)
    return tensors if h.tied else tensors | {"output": weights["head/table/embedding"]}
