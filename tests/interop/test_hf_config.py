"""config.json: both spellings of transformers, rotary scalings, windows; everything else refused by name."""

import dataclasses
from typing import Any

import pytest

from research.interop import config_from_hf, config_to_hf
from research.interop.hf_config import canonical
from research.models import preset
from research.ops.positions import Rope
from tests.interop.conftest import small_config

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "vocab_size": 41,
}
BERT = {"model_type": "bert", "architectures": ["BertForMaskedLM"], "num_hidden_layers": 2}
QWEN = LLAMA | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
GEMMA = LLAMA | {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 7}
BART = {"model_type": "bart", "architectures": ["BartForConditionalGeneration"]}
T5 = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}


def test_a_config_of_every_family_survives(family: str) -> None:
    config = small_config(family)
    assert canonical(config_from_hf(config_to_hf(config))) == canonical(config)


def test_what_a_gpt2_config_says() -> None:
    config = config_from_hf({"model_type": "gpt2", "n_embd": 32, "n_head": 2, "n_layer": 3, "n_inner": None})
    want = preset("gpt2", d_model=32, n_heads=2, n_layers=3, d_ff=128)
    assert config == dataclasses.replace(want, init_std=config.init_std)


ROPES = [
    ({"type": "linear", "factor": 4.0}, Rope(scaling="linear", factor=4.0)),
    ({"type": "dynamic", "factor": 2.0}, Rope(scaling="dynamic", factor=2.0, original_length=64)),
    (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 16},
        Rope(scaling="yarn", factor=4.0, original_length=16, beta_fast=16.0),
    ),
    (
        {"rope_type": "yarn", "factor": 1.0, "mscale": 2.0, "mscale_all_dim": 1.0},
        Rope(scaling="yarn", factor=1.0, original_length=64, attention_factor=1.0),
    ),
    (
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 2.0,
            "high_freq_factor": 5.0,
            "original_max_position_embeddings": 32,
        },
        Rope(scaling="llama3", factor=8.0, low_freq_factor=2.0, high_freq_factor=5.0, original_length=32),
    ),
    ({"rope_type": "default"}, Rope()),
]


@pytest.mark.parametrize(("given", "rope"), ROPES)
def test_rotary_settings_in_both_spellings(given: dict[str, Any], rope: Rope) -> None:
    rope = dataclasses.replace(rope, theta=5000.0)
    old = config_from_hf(LLAMA | {"rope_theta": 5000.0, "rope_scaling": given})
    new = config_from_hf(LLAMA | {"rope_parameters": {"rope_theta": 5000.0, **given}})
    assert old == new and old.rope == rope
    assert old.max_length == (128 if rope.scaling == "dynamic" else 64)
    assert canonical(config_from_hf(config_to_hf(old))) == canonical(old)


def test_mscale_gives_the_attention_factor() -> None:
    rope = {"rope_type": "yarn", "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.0}
    factor = config_from_hf(LLAMA | {"rope_scaling": rope}).rope.attention_factor
    assert factor == pytest.approx(1.2608 / 1.3689, abs=1e-4)


def test_a_fixed_ntk_stretch_is_written_as_a_larger_theta() -> None:
    config = config_from_hf(LLAMA).replace(rope=Rope(scaling="ntk", factor=2.0))
    written = config_to_hf(config)["rope_parameters"]
    assert written == {"rope_type": "default", "rope_theta": pytest.approx(10_000 * 2 ** (4 / 2))}


def test_windows_by_layer() -> None:
    assert config_from_hf(QWEN).window == 0
    some = config_from_hf(QWEN | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1})
    assert (some.window, some.sliding) == (8, (False, True, True))
    named = config_from_hf(
        QWEN
        | {"use_sliding_window": True, "sliding_window": 8}
        | {"layer_types": ["sliding_attention", "full_attention", "full_attention"]}
    )
    assert named.sliding == (True, False, False)
    everywhere = config_from_hf(LLAMA | {"model_type": "mistral", "architectures": ["MistralForCausalLM"]})
    assert (everywhere.window, everywhere.sliding) == (4096, ())
    old = config_from_hf(GEMMA | {"sliding_window_pattern": 3, "rope_local_base_freq": 500.0, "rope_theta": 7.0})
    assert old.sliding == (True, True, False, True, True, False, True)
    assert old.rope.theta == 7.0 and old.rope_local is not None and old.rope_local.theta == 500.0


def test_t5_output_scaling_in_both_spellings() -> None:
    assert config_from_hf(T5).logit_scale == 512**-0.5
    four = config_from_hf(T5 | {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"})
    assert (four.tied, four.logit_scale, four.activation, four.gated) == (False, 1.0, "gelu_tanh", True)
    five = config_from_hf(T5 | {"tie_word_embeddings": True, "scale_decoder_outputs": False})
    assert (five.tied, five.logit_scale) == (True, 1.0)


def test_labels_and_token_ids() -> None:
    named = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "a", "1": "b", "2": "c"}}
    config = config_from_hf(LLAMA | named | {"eos_token_id": [7, 9], "pad_token_id": None})
    assert (config.head, config.n_labels, config.eos_id, config.pad_id) == ("sequence", 3, 7, -1)
    written = config_to_hf(config.replace(n_labels=2))
    assert written["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"} and written["pad_token_id"] is None
    kept = config_to_hf(config, LLAMA | named)
    assert kept["id2label"] == named["id2label"]


def test_changing_the_head_later_finds_the_familys_choices() -> None:
    config = config_from_hf(BERT).replace(head="sequence")
    assert (config.pooling, config.head_dense, config.head_bias) == ("first", True, True)
    assert config_from_hf(LLAMA).replace(head="sequence").head_bias is False


@pytest.mark.parametrize(
    ("hf", "message"),
    [
        ({"model_type": "mamba"}, r"model_type 'mamba' is not supported; have \['bart', 'bert'"),
        ({}, r"model_type None is not supported"),
        (LLAMA | {"hidden_act": "quick_gelu"}, r"activation 'quick_gelu' is not supported; have \['gelu'"),
        (LLAMA | {"rope_scaling": {"type": "longrope"}}, r"rope_type 'longrope' is not supported; have \['default'"),
        (LLAMA | {"rope_scaling": {"type": "linear"}}, r"rope_type 'linear' needs \['factor'\]"),
        (LLAMA | {"rope_scaling": {"type": "linear", "factor": 2, "beta": 1}}, r"rope settings \['beta'\] are unknown"),
        (LLAMA | {"partial_rotary_factor": 0.5}, r"partial_rotary_factor = 0.5 is not supported"),
        (LLAMA | {"quantization_config": {"bits": 4}}, r"quantization_config = .* is not supported; expected None"),
        (
            LLAMA | {"n_experts": 8},
            r"settings unknown for model_type 'llama': {'n_experts': 8}.*ignore=\['n_experts'\]",
        ),
        (LLAMA | {"architectures": ["LlamaForQuestionAnswering"]}, r"architectures \['LlamaForQuestionAnswering'\]"),
        ({k: v for k, v in LLAMA.items() if k != "hidden_size"}, r"config.json has no 'hidden_size'"),
        (LLAMA | {"num_key_value_heads": 3}, r"n_heads 4 is no multiple of n_kv_heads 3"),
        (BERT | {"position_embedding_type": "relative_key"}, r"position_embedding_type = 'relative_key'"),
        (BERT | {"is_decoder": True}, r"is_decoder = True is not supported; expected False"),
        ({"model_type": "roberta", "hidden_act": "relu"}, r"hidden_act = 'relu' is not supported"),
        ({"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True}, r"scale_attn_by_inverse_layer_idx = True"),
        ({"model_type": "bloom", "apply_residual_connection_post_layernorm": True}, r"post_layernorm = True"),
        (
            {"model_type": "bloom", "hidden_size": 16, "n_inner": 20},
            r"n_inner = 20 is not supported; expected None or 64",
        ),
        (BART | {"normalize_before": True}, r"normalize_before = True is not supported; expected False"),
        (BART | {"encoder_ffn_dim": 8}, r"encoder_ffn_dim = 8 is not supported; expected 4096"),
        (T5 | {"feed_forward_proj": "gated-swish2"}, r"activation 'swish2' is not supported"),
        (GEMMA | {"attn_logit_softcapping": 50.0}, r"attn_logit_softcapping = 50.0 is not supported"),
        (GEMMA | {"use_bidirectional_attention": True}, r"use_bidirectional_attention = True"),
        (QWEN | {"layer_types": ["linear_attention"] * 3}, r"layer_types \['linear_attention'\] are not supported"),
    ],
)
def test_unsupported_settings_are_named(hf: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        config_from_hf(hf)
    assert "\n" not in str(error.value)


def test_a_known_harmless_key_can_be_ignored() -> None:
    assert config_from_hf(LLAMA | {"n_experts": 8}, ignore=["n_experts"]) == config_from_hf(LLAMA)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"norm_position": "parallel"}, r"'llama' cannot express norm_position = 'parallel' \(it has 'pre'\)"),
        ("gpt2", {"gated": True}, r"'gpt2' cannot express gated = True"),
        ("qwen2", {"attention_bias": False}, r"'qwen2' cannot express attention_bias = False"),
        ("gemma3_text", {"attention_cap": 30.0}, r"cannot express attention_cap = 30.0"),
        ("bart", {"head": "token"}, r"no 'bart' with head 'token'"),
        ("bloom", {"d_ff": 48}, r"cannot express d_ff = 48"),
        ("t5", {"logit_scale": 0.5}, r"cannot express logit_scale = 0.5"),
        ("llama", {"sliding": (True, False, False), "window": 4}, r"cannot express window = 4"),
    ],
)
def test_choices_that_transformers_lacks_are_named_on_export(name: str, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_to_hf(small_config(name, **changes))
