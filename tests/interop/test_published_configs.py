"""The config.json of well-known releases, with all the keys of their time, describe our presets."""

from typing import Any

import pytest

from research.interop import config_from_hf
from research.interop.hf_config import canonical
from research.models import preset


def decoder(
    name: str, kind: str, layers: int, width: int, heads: int, kv: int, ff: int, vocab: int, **more: Any
) -> dict:
    """The keys that all LLaMA-like releases share."""
    return {
        "architectures": [f"{name}ForCausalLM"],
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": ff,
        "model_type": kind,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.0",
        "use_cache": True,
        "vocab_size": vocab,
        **more,
    }


_LLAMA3_ROPE = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
_BERT = {
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}
_T5 = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "vocab_size": 32128,
}
RELEASED: dict[str, dict[str, Any]] = {
    "gpt2": {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 50256,
        "embd_pdrop": 0.1,
        "eos_token_id": 50256,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": 1024,
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": 1024,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 50257,
    },
    "bert-base": _BERT
    | {
        "architectures": ["BertForMaskedLM"],
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "transformers_version": "4.6.0.dev0",
        "type_vocab_size": 2,
        "use_cache": True,
        "vocab_size": 30522,
    },
    "roberta-base": _BERT
    | {
        "architectures": ["RobertaForMaskedLM"],
        "bos_token_id": 0,
        "eos_token_id": 2,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 514,
        "model_type": "roberta",
        "pad_token_id": 1,
        "type_vocab_size": 1,
        "vocab_size": 50265,
    },
    "llama3.2-1b": decoder("Llama", "llama", 16, 2048, 32, 8, 8192, 128256)
    | {"attention_bias": False, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "head_dim": 64}
    | {"max_position_embeddings": 131072, "mlp_bias": False, "pretraining_tp": 1, "rms_norm_eps": 1e-05}
    | {"rope_scaling": _LLAMA3_ROPE, "rope_theta": 500000.0, "tie_word_embeddings": True},
    "mistral-7b": decoder("Mistral", "mistral", 32, 4096, 32, 8, 14336, 32000)
    | {"bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 32768, "rms_norm_eps": 1e-05}
    | {"rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False},
    "qwen2-0.5b": decoder("Qwen2", "qwen2", 24, 896, 14, 2, 4864, 151936)
    | {"bos_token_id": 151643, "eos_token_id": 151643, "max_position_embeddings": 131072, "max_window_layers": 24}
    | {"rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": True}
    | {"use_sliding_window": False, "use_mrope": False},
    "qwen3-0.6b": decoder("Qwen3", "qwen3", 28, 1024, 16, 8, 3072, 151936)
    | {"attention_bias": False, "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128}
    | {"max_position_embeddings": 40960, "max_window_layers": 28, "rms_norm_eps": 1e-06, "rope_scaling": None}
    | {"rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window": False},
    "gemma2-2b": decoder("Gemma2", "gemma2", 26, 2304, 8, 4, 9216, 256000)
    | {"attention_bias": False, "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid"}
    | {"eos_token_id": 1, "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh"}
    | {"hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 8192, "pad_token_id": 0}
    | {"query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096},
    "gemma3-1b": {
        k: v for k, v in decoder("Gemma3", "gemma3_text", 26, 1152, 4, 1, 6912, 262144).items() if k != "hidden_act"
    }
    | {"attention_bias": False, "attn_logit_softcapping": None, "bos_token_id": 2, "cache_implementation": "hybrid"}
    | {"eos_token_id": [1, 106], "final_logit_softcapping": None, "head_dim": 256, "pad_token_id": 0}
    | {"hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 32768, "query_pre_attn_scalar": 256}
    | {"rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000}
    | {"sliding_window": 512, "sliding_window_pattern": 6},
    "bloom-560m": {
        "apply_residual_connection_post_layernorm": False,
        "architectures": ["BloomForCausalLM"],
        "attention_dropout": 0.0,
        "attention_softmax_in_fp32": True,
        "bias_dropout_fusion": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_dropout": 0.0,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "masked_softmax_fusion": True,
        "model_type": "bloom",
        "n_embed": 1024,
        "n_inner": None,
        "n_layer": 24,
        "num_attention_heads": 16,
        "offset_alibi": 100,
        "pad_token_id": 3,
        "pretraining_tp": 1,
        "seq_length": 2048,
        "skip_bias_add": True,
        "skip_bias_add_qkv": False,
        "slow_but_exact": False,
        "unk_token_id": 0,
        "use_cache": True,
        "vocab_size": 250880,
    },
    "t5-small": _T5 | {"d_ff": 2048, "num_heads": 8, "num_layers": 6, "task_specific_params": {"summarization": {}}},
    "flan-t5-small": _T5
    | {"d_ff": 1024, "feed_forward_proj": "gated-gelu", "num_decoder_layers": 8, "num_heads": 6, "num_layers": 8}
    | {"relative_attention_max_distance": 128, "tie_word_embeddings": False},
    "bart-base": {
        "activation_dropout": 0.1,
        "activation_function": "gelu",
        "add_bias_logits": False,
        "add_final_layer_norm": False,
        "architectures": ["BartModel"],
        "attention_dropout": 0.1,
        "bos_token_id": 0,
        "classif_dropout": 0.1,
        "classifier_dropout": 0.0,
        "d_model": 768,
        "decoder_attention_heads": 12,
        "decoder_ffn_dim": 3072,
        "decoder_layerdrop": 0.0,
        "decoder_layers": 6,
        "decoder_start_token_id": 2,
        "dropout": 0.1,
        "early_stopping": True,
        "encoder_attention_heads": 12,
        "encoder_ffn_dim": 3072,
        "encoder_layerdrop": 0.0,
        "encoder_layers": 6,
        "eos_token_id": 2,
        "forced_eos_token_id": 2,
        "forced_bos_token_id": 0,
        "gradient_checkpointing": False,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
        "init_std": 0.02,
        "is_encoder_decoder": True,
        "max_position_embeddings": 1024,
        "model_type": "bart",
        "no_repeat_ngram_size": 3,
        "normalize_before": False,
        "normalize_embedding": True,
        "num_beams": 4,
        "num_hidden_layers": 6,
        "pad_token_id": 1,
        "scale_embedding": False,
        "vocab_size": 50265,
    },
}
# What these releases say otherwise than the presets, which keep to the papers' models without fine-tuning.
DEVIATIONS = {"qwen2-0.5b": {"max_length": 131072}, "qwen3-0.6b": {"eos_id": 151645}}


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_config_describes_the_preset(name: str) -> None:
    got = config_from_hf(RELEASED[name], head=preset(name).head)
    assert canonical(got) == canonical(preset(name, **DEVIATIONS.get(name, {})))
