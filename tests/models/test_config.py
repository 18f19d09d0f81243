"""Configs: published sizes, derived fields, refusals."""

import pytest

from research.core import tree
from research.models import PRESETS, ModelConfig, build, preset

# Published counts: GPT-2, LLaMA and Llama 2/3 by formula (oracles, section 11), PaLM Table 1 in billions.
COUNTS = {
    "gpt2": 124_439_808,
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-30b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama2-70b": 68_976_648_192,
    "llama3.2-3b": 3_212_749_824,
    "stories260k": 260_032,
}


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_parameter_counts_equal_the_published_ones(name):
    assert tree.count(build(preset(name)).abstract()) == COUNTS[name]


@pytest.mark.parametrize(("name", "billions"), [("palm-8b", 8.63), ("palm-62b", 62.50), ("palm-540b", 540.35)])
def test_palm_counts_equal_its_table(name, billions):
    assert abs(tree.count(build(preset(name)).abstract()) / 1e9 - billions) < 0.01


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_a_valid_config_with_weights_for_every_layer(name):
    config = preset(name)
    shapes = tree.paths(build(config).abstract())
    stacks = {"encoder": ["encoder"], "decoder": ["decoder"], "encoder_decoder": ["decoder", "encoder"]}[config.kind]
    for stack in stacks:
        layers = [leaf.shape[0] for path, leaf in shapes.items() if path.startswith(f"{stack}/layers/00/")]
        assert layers and set(layers) == {config.n_layers}
    assert shapes["embed/tokens/embedding"].shape == (config.vocab_size, config.d_model)


def test_replace_recomputes_what_follows():
    config = preset("gpt2").replace(d_model=96, n_heads=6, n_layers=4)
    assert (config.head_dim, config.n_kv_heads, config.n_encoder_layers) == (16, 6, 4)
    assert preset("gemma3-1b").replace(n_layers=8).sliding == (True,) * 5 + (False,) + (True,) * 2
    assert preset("gemma2-2b").replace(d_model=64).head_dim == 256


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: preset("gpt3"), "unknown preset 'gpt3', did you mean 'gpt2'"),
        (lambda: preset("gpt2").replace(n_layer=2), "unknown model field 'n_layer', did you mean 'n_layers'"),
        (lambda: preset("gpt2", positions="rotary"), r"positions: 'rotary' is not one of \['none'"),
        (lambda: preset("gpt2", n_heads=7), "d_model 768 does not divide into n_heads 7"),
        (lambda: preset("llama-7b", n_kv_heads=5), "n_heads 32 is no multiple of n_kv_heads 5"),
        (lambda: preset("gpt2", activation="swish2"), "unknown activation 'swish2'"),
        (lambda: preset("gpt2", vocab_size=0), "vocab_size must be at least 1; given 0"),
        (lambda: preset("llama-7b", head_dim=7), "RoPE needs an even head_dim; given 7"),
        (lambda: preset("gpt2", sliding=(True,) * 3), "sliding has 3 entries for n_layers 12"),
        (lambda: ModelConfig(5, 4, 1, 1, 4, sliding=(True,)), "sliding layers need a window"),
        (lambda: build(preset("gpt2"), remat="some"), r"unknown remat 'some'; have \['dots', 'full', 'none'\]"),
        (lambda: build(preset("gpt2"), policy="bf61"), "unknown precision policy 'bf61'"),
    ],
)
def test_refusals_name_what_was_given_and_what_exists(make, message):
    with pytest.raises(ValueError, match=message):
        make()
