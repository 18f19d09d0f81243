"""Tiny random models of every family that transformers has, built once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from research.models import ModelConfig, build, preset

SMALL = {"n_layers": 3, "d_model": 16, "n_heads": 4, "d_ff": 24, "vocab_size": 41, "max_length": 20}
PRESETS = {
    "bert": "bert-base",
    "roberta": "roberta-base",
    "gpt2": "gpt2",
    "llama": "llama3.1-8b",
    "bloom": "bloom-560m",
    "mistral": "mistral-7b",
    "qwen2": "qwen2-7b",
    "qwen3": "qwen3-8b",
    "gemma2": "gemma2-2b",
    "gemma3_text": "gemma3-1b",
    "t5": "t5-small",
    "t5-untied": "flan-t5-small",
    "bart": "bart-base",
}


def small_config(name: str, **changes: Any) -> ModelConfig:
    """A small config with the family's own choices."""
    base = preset(PRESETS[name])
    more = {"head_dim": 6, "n_kv_heads": 2} if base.positions == "rope" else {}
    more |= {"embed_scale": 4.0} if base.embed_scale != 1 else {}
    more |= {"logit_scale": 0.25} if base.logit_scale != 1 else {}
    more |= {"d_ff": 64} if name == "bloom" else {}
    more |= {"sliding": (True, False, True)} if base.sliding else {}
    return base.replace(**(SMALL | more | changes))


@functools.cache
def small(name: str, dtype: Any = jnp.float32, **changes: Any) -> tuple[ModelConfig, Any]:
    """The config and random weights of a small model."""
    config = small_config(name, **changes)
    shapes = build(config).abstract()
    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape).astype(dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return config, jax.tree.unflatten(structure, drawn)


@pytest.fixture(params=sorted(PRESETS))
def family(request: pytest.FixtureRequest) -> str:
    """Every family in turn."""
    return request.param
