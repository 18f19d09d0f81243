"""Tiny models of every family, built once."""

import functools

import jax
import pytest

from research.models import Model, ModelConfig, build, preset

TINY = {"n_layers": 3, "d_model": 32, "n_heads": 4, "d_ff": 48, "vocab_size": 61, "head_dim": 8, "max_length": 24}
NAMES = {
    "bert": "bert-base",
    "roberta": "roberta-base",
    "gpt2": "gpt2",
    "llama": "llama3.2-1b",
    "bloom": "bloom-560m",
    "palm": "palm-8b",
    "mistral": "mistral-7b",
    "qwen2": "qwen2-7b",
    "qwen3": "qwen3-8b",
    "gemma2": "gemma2-2b",
    "gemma3": "gemma3-1b",
    "t5": "t5-small",
    "t5-v1.1": "t5-v1.1-small",
    "bart": "bart-base",
}


def tiny_config(family: str, **changes) -> ModelConfig:
    """A small model of the family with all its choices in place."""
    base = preset(NAMES[family])
    kv = {"n_kv_heads": 2} if 1 < base.n_kv_heads < base.n_heads else {}
    window = {"window": 4} if base.window else {}
    if base.sliding:
        window["sliding"] = (True, False, True)[: changes.get("n_layers", 3)]
    none = dict.fromkeys(("embed_dropout", "attention_dropout", "residual_dropout"), 0.0)
    return base.replace(**(TINY | kv | window | none | changes))


@functools.cache
def tiny(family: str, **changes) -> tuple[Model, dict]:
    """The model and perturbed weights (so that norms and biases matter)."""
    model = build(tiny_config(family, **changes))
    params = jax.jit(model.init)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return model, jax.tree.unflatten(structure, noisy)


@pytest.fixture(params=sorted(NAMES))
def family(request) -> str:
    """Every family in turn."""
    return request.param
