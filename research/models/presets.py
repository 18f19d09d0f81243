"""Published models by name: each family is a row of choices, each size a few numbers on top of it."""

from typing import Any

from research.core.names import meant
from research.models.config import ModelConfig
from research.ops.positions import Rope

_BERT = {
    "family": "bert",
    "kind": "encoder",
    "vocab_size": 30_522,
    "max_length": 512,
    "norm_eps": 1e-12,
    "norm_position": "post",
    "embed_norm": True,
    "final_norm": False,
    "n_token_types": 2,
    "head": "mlm",
    "pooling": "first",
    "head_dense": True,
    "embed_dropout": 0.1,
    "attention_dropout": 0.1,
    "residual_dropout": 0.1,
    "pad_id": 0,
}
_ROBERTA = _BERT | {
    "family": "roberta",
    "vocab_size": 50_265,
    "norm_eps": 1e-5,
    "position_offset": 2,
    "n_token_types": 1,
    "pad_id": 1,
    "bos_id": 0,
    "eos_id": 2,
}
_GPT2 = {
    "family": "gpt2",
    "vocab_size": 50_257,
    "max_length": 1024,
    "activation": "gelu_tanh",
    "embed_dropout": 0.1,
    "attention_dropout": 0.1,
    "residual_dropout": 0.1,
    "head_bias": False,
    "bos_id": 50_256,
    "eos_id": 50_256,
}
_LLAMA = {
    "family": "llama",
    "vocab_size": 32_000,
    "max_length": 2048,
    "activation": "silu",
    "gated": True,
    "norm": "rmsnorm",
    "norm_eps": 1e-6,
    "positions": "rope",
    "attention_bias": False,
    "attention_out_bias": False,
    "mlp_bias": False,
    "tied": False,
    "head_bias": False,
    "bos_id": 1,
    "eos_id": 2,
}
_LLAMA2 = _LLAMA | {"max_length": 4096, "norm_eps": 1e-5}
_LLAMA3 = _LLAMA2 | {
    "vocab_size": 128_256,
    "max_length": 8192,
    "n_kv_heads": 8,
    "rope": Rope(theta=500_000.0),
    "bos_id": 128_000,
    "eos_id": 128_001,
}
_LLAMA31 = _LLAMA3 | {
    "max_length": 131_072,
    "rope": Rope(theta=500_000.0, scaling="llama3", factor=8.0, original_length=8192),
}
_LLAMA32 = _LLAMA31 | {
    "tied": True,
    "rope": Rope(theta=500_000.0, scaling="llama3", factor=32.0, original_length=8192),
}
_MISTRAL = _LLAMA2 | {"family": "mistral", "max_length": 32_768, "n_kv_heads": 8, "window": 4096}
_QWEN2 = _LLAMA | {
    "family": "qwen2",
    "vocab_size": 151_936,
    "max_length": 32_768,
    "rope": Rope(theta=1_000_000.0),
    "attention_bias": True,
    "bos_id": 151_643,
    "eos_id": 151_643,
}
_QWEN3 = _QWEN2 | {"family": "qwen3", "max_length": 40_960, "attention_bias": False, "qk_norm": True, "head_dim": 128}
_GEMMA2 = _LLAMA | {
    "family": "gemma2",
    "vocab_size": 256_000,
    "max_length": 8192,
    "activation": "gelu_tanh",
    "norm_offset": 1.0,
    "norm_position": "sandwich",
    "tied": True,
    "attention_cap": 50.0,
    "logit_cap": 30.0,
    "window": 4096,
    "pad_id": 0,
    "bos_id": 2,
    "eos_id": 1,
}
_GEMMA3 = _GEMMA2 | {
    "family": "gemma3_text",
    "vocab_size": 262_144,
    "attention_cap": 0.0,
    "logit_cap": 0.0,
    "qk_norm": True,
    "head_dim": 256,
    "window": 1024,
    "max_length": 131_072,
    "attention_scale": 256**-0.5,
    "rope_local": Rope(theta=10_000.0),
}
_BLOOM = {
    "family": "bloom",
    "vocab_size": 250_880,
    "max_length": 2048,
    "activation": "gelu_tanh",
    "positions": "alibi",
    "embed_norm": True,
    "head_bias": False,
    "pad_id": 3,
    "bos_id": 1,
    "eos_id": 2,
}
_PALM = {
    "family": "palm",
    "vocab_size": 256_000,
    "max_length": 2048,
    "activation": "silu",
    "gated": True,
    "norm_bias": False,
    "norm_position": "parallel",
    "positions": "rope",
    "n_kv_heads": 1,
    "head_dim": 256,
    "attention_bias": False,
    "attention_out_bias": False,
    "mlp_bias": False,
    "head_bias": False,
    "init_std": 0.0,
}
_T5 = {
    "family": "t5",
    "kind": "encoder_decoder",
    "vocab_size": 32_128,
    "max_length": 512,
    "activation": "relu",
    "norm": "rmsnorm",
    "norm_eps": 1e-6,
    "positions": "relative",
    "attention_bias": False,
    "attention_out_bias": False,
    "mlp_bias": False,
    "attention_scale": 1.0,
    "init_std": 0.0,
    "pooling": "eos",
    "head_dense": True,
    "embed_dropout": 0.1,
    "attention_dropout": 0.1,
    "residual_dropout": 0.1,
    "pad_id": 0,
    "eos_id": 1,
    "decoder_start_id": 0,
}
_T5_V11 = _T5 | {"activation": "gelu_tanh", "gated": True, "tied": False}
_BART = {
    "family": "bart",
    "kind": "encoder_decoder",
    "vocab_size": 50_265,
    "max_length": 1024,
    "norm_position": "post",
    "embed_norm": True,
    "final_norm": False,
    "position_offset": 2,
    "pooling": "eos",
    "head_dense": True,
    "embed_dropout": 0.1,
    "attention_dropout": 0.1,
    "residual_dropout": 0.1,
    "pad_id": 1,
    "bos_id": 0,
    "eos_id": 2,
    "decoder_start_id": 2,
}


def _size(layers: int, width: int, heads: int, ff: int, **more: Any) -> dict[str, Any]:
    return {"n_layers": layers, "d_model": width, "n_heads": heads, "d_ff": ff, **more}


def _gemma(size: dict[str, Any], every: int) -> dict[str, Any]:
    """Every `every`-th layer sees all; the others slide."""
    sliding = tuple((i + 1) % every != 0 for i in range(size["n_layers"]))
    return {"sliding": sliding, "embed_scale": size["d_model"] ** 0.5, **size}


def _palm(size: dict[str, Any]) -> dict[str, Any]:
    return {"logit_scale": size["d_model"] ** -0.5, **size}


def _t5(family: dict[str, Any], size: dict[str, Any]) -> dict[str, Any]:
    scale = size["d_model"] ** -0.5 if family.get("tied", True) else 1.0
    return family | {"logit_scale": scale} | size


_LONG_ROPE = {"rope": Rope(theta=1_000_000.0, scaling="linear", factor=8.0)}
_T5_SIZES = {
    "small": (_size(6, 512, 8, 2048, head_dim=64), _size(8, 512, 6, 1024, head_dim=64)),
    "base": (_size(12, 768, 12, 3072, head_dim=64), _size(12, 768, 12, 2048, head_dim=64)),
    "large": (_size(24, 1024, 16, 4096, head_dim=64), _size(24, 1024, 16, 2816, head_dim=64)),
    "3b": (_size(24, 1024, 32, 16_384, head_dim=128), _size(24, 2048, 32, 5120, head_dim=64)),
    "11b": (_size(24, 1024, 128, 65_536, head_dim=128), _size(24, 4096, 64, 10_240, head_dim=64)),
}
_T5_V11_NAMES = {"3b": "xl", "11b": "xxl"}

PRESETS: dict[str, dict[str, Any]] = {
    "bert-base": _BERT | _size(12, 768, 12, 3072),
    "bert-large": _BERT | _size(24, 1024, 16, 4096),
    "minilm-l6": _BERT | _size(6, 384, 12, 1536),
    "roberta-base": _ROBERTA | _size(12, 768, 12, 3072),
    "roberta-large": _ROBERTA | _size(24, 1024, 16, 4096),
    "gpt2": _GPT2 | _size(12, 768, 12, 3072),
    "gpt2-medium": _GPT2 | _size(24, 1024, 16, 4096),
    "gpt2-large": _GPT2 | _size(36, 1280, 20, 5120),
    "gpt2-xl": _GPT2 | _size(48, 1600, 25, 6400),
    "stories260k": _LLAMA2 | _size(5, 64, 8, 172, n_kv_heads=4, vocab_size=512, max_length=512, tied=True),
    "llama-7b": _LLAMA | _size(32, 4096, 32, 11_008),
    "llama-13b": _LLAMA | _size(40, 5120, 40, 13_824),
    "llama-30b": _LLAMA | _size(60, 6656, 52, 17_920),
    "llama-65b": _LLAMA | _size(80, 8192, 64, 22_016),
    "llama2-7b": _LLAMA2 | _size(32, 4096, 32, 11_008),
    "llama2-13b": _LLAMA2 | _size(40, 5120, 40, 13_824),
    "llama2-70b": _LLAMA2 | _size(80, 8192, 64, 28_672, n_kv_heads=8),
    "llama3-8b": _LLAMA3 | _size(32, 4096, 32, 14_336),
    "llama3-70b": _LLAMA3 | _size(80, 8192, 64, 28_672),
    "llama3.1-8b": _LLAMA31 | _size(32, 4096, 32, 14_336),
    "llama3.1-70b": _LLAMA31 | _size(80, 8192, 64, 28_672),
    "llama3.1-405b": _LLAMA31 | _size(126, 16_384, 128, 53_248),
    "llama3.2-1b": _LLAMA32 | _size(16, 2048, 32, 8192),
    "llama3.2-3b": _LLAMA32 | _size(28, 3072, 24, 8192),
    "mistral-7b": _MISTRAL | _size(32, 4096, 32, 14_336),
    "qwen2-0.5b": _QWEN2 | _size(24, 896, 14, 4864, n_kv_heads=2, tied=True),
    "qwen2-1.5b": _QWEN2 | _size(28, 1536, 12, 8960, n_kv_heads=2, tied=True),
    "qwen2-7b": _QWEN2 | _size(28, 3584, 28, 18_944, n_kv_heads=4, vocab_size=152_064),
    "qwen2-72b": _QWEN2 | _size(80, 8192, 64, 29_568, n_kv_heads=8, vocab_size=152_064),
    "qwen3-0.6b": _QWEN3 | _size(28, 1024, 16, 3072, n_kv_heads=8, tied=True),
    "qwen3-1.7b": _QWEN3 | _size(28, 2048, 16, 6144, n_kv_heads=8, tied=True),
    "qwen3-4b": _QWEN3 | _size(36, 2560, 32, 9728, n_kv_heads=8, tied=True),
    "qwen3-8b": _QWEN3 | _size(36, 4096, 32, 12_288, n_kv_heads=8),
    "qwen3-14b": _QWEN3 | _size(40, 5120, 40, 17_408, n_kv_heads=8),
    "qwen3-32b": _QWEN3 | _size(64, 5120, 64, 25_600, n_kv_heads=8),
    "gemma2-2b": _GEMMA2 | _gemma(_size(26, 2304, 8, 9216, n_kv_heads=4, head_dim=256, attention_scale=256**-0.5), 2),
    "gemma2-9b": _GEMMA2
    | _gemma(_size(42, 3584, 16, 14_336, n_kv_heads=8, head_dim=256, attention_scale=256**-0.5), 2),
    "gemma2-27b": _GEMMA2
    | _gemma(_size(46, 4608, 32, 36_864, n_kv_heads=16, head_dim=128, attention_scale=144**-0.5), 2),
    "gemma3-1b": _GEMMA3
    | {"rope": Rope(theta=1_000_000.0)}
    | _gemma(_size(26, 1152, 4, 6912, n_kv_heads=1, window=512, max_length=32_768), 6),
    "gemma3-4b": _GEMMA3 | _LONG_ROPE | _gemma(_size(34, 2560, 8, 10_240, n_kv_heads=4, vocab_size=262_208), 6),
    "gemma3-12b": _GEMMA3 | _LONG_ROPE | _gemma(_size(48, 3840, 16, 15_360, n_kv_heads=8, vocab_size=262_208), 6),
    "gemma3-27b": _GEMMA3
    | _LONG_ROPE
    | _gemma(
        _size(62, 5376, 32, 21_504, n_kv_heads=16, vocab_size=262_208, head_dim=128, attention_scale=168**-0.5), 6
    ),
    "bloom-560m": _BLOOM | _size(24, 1024, 16, 4096),
    "bloom-1b1": _BLOOM | _size(24, 1536, 16, 6144),
    "bloom-1b7": _BLOOM | _size(24, 2048, 16, 8192),
    "bloom-3b": _BLOOM | _size(30, 2560, 32, 10_240),
    "bloom-7b1": _BLOOM | _size(30, 4096, 32, 16_384),
    "bloom-176b": _BLOOM | _size(70, 14_336, 112, 57_344),
    "palm-8b": _PALM | _palm(_size(32, 4096, 16, 16_384)),
    "palm-62b": _PALM | _palm(_size(64, 8192, 32, 32_768)),
    "palm-540b": _PALM | _palm(_size(118, 18_432, 48, 73_728)),
    **{f"t5-{name}": _t5(_T5, sizes[0]) for name, sizes in _T5_SIZES.items()},
    **{f"t5-v1.1-{_T5_V11_NAMES.get(name, name)}": _t5(_T5_V11, sizes[1]) for name, sizes in _T5_SIZES.items()},
    **{f"flan-t5-{_T5_V11_NAMES.get(name, name)}": _t5(_T5_V11, sizes[1]) for name, sizes in _T5_SIZES.items()},
    "bart-base": _BART | _size(6, 768, 12, 3072),
    "bart-large": _BART | _size(12, 1024, 16, 4096),
}


def preset(name: str, **changes: Any) -> ModelConfig:
    """The config of a published model, with some fields changed.

    Raises:
      ValueError: an unknown name; the message offers the nearest and lists what exists.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}{meant(name, PRESETS)}; have {sorted(PRESETS)}")
    config = ModelConfig(**PRESETS[name])
    return config.replace(**changes) if changes else config
