"""Small random models of every family and head that transformers has, and how to run both sides on one batch.

B batch · T length · S source length · V vocabulary
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core import tree
from research.interop import load_pretrained
from research.interop.hf_read import read_params
from research.models import build
from research.ops.cross_entropy import cross_entropy

V = 67
PAD = 1
_BODY = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40, "vocab_size": V}
_BODY |= {"max_position_embeddings": 40, "pad_token_id": PAD}
_GROUPED = _BODY | {"num_key_value_heads": 2, "head_dim": 8}
_MULTI_QUERY = _BODY | {"num_key_value_heads": 1, "head_dim": 6}
_T5 = {"d_model": 24, "d_kv": 8, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4, "d_ff": 40}
_T5 |= {"vocab_size": V, "pad_token_id": PAD, "eos_token_id": 2, "decoder_start_token_id": PAD}
_T5 |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "num_labels": 3}
_BART = {"d_model": 24, "encoder_layers": 2, "decoder_layers": 3, "vocab_size": V, "max_position_embeddings": 40}
_BART |= {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")}
_BART |= {f"{side}_ffn_dim": 40 for side in ("encoder", "decoder")}
_GPT2 = {"vocab_size": V, "n_positions": 40, "n_embd": 24, "n_layer": 2, "n_head": 4, "pad_token_id": PAD}
_BLOOM = {"vocab_size": V, "hidden_size": 24, "n_layer": 2, "n_head": 4, "pad_token_id": PAD}
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 4.0, "low_freq_factor": 1.0}
_LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
_YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 16}
_LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
_GEMMA = {"query_pre_attn_scalar": 12, "sliding_window": 4}
_BERT3 = _BODY | {"num_labels": 3}


@dataclass(frozen=True)
class Case:
    """One random model: their class and config, the batch's shape and which rows are padded where."""

    name: str
    config: str
    model: str
    values: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 5
    length: int = 9
    source: int = 7

    @property
    def head(self) -> str:
        for ending, head in _ENDINGS.items():
            if self.model.endswith(ending):
                return head
        raise ValueError(self.model)

    @property
    def encodes(self) -> bool:
        return self.model.startswith(("T5", "Bart")) and self.head != "token"


_ENDINGS = {
    "ForMaskedLM": "mlm",
    "ForConditionalGeneration": "lm",
    "ForCausalLM": "lm",
    "LMHeadModel": "lm",
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "token",
}


def _family(name: str, config: str, prefix: str, padded: dict, single: dict, *heads: str, **labels: Any) -> list[Case]:
    """A padded batch of five tied rows, one untied row without padding, and the label heads on the padded batch."""
    lm, *others = heads
    return [
        Case(f"{name}-padded", config, prefix + lm, padded),
        Case(f"{name}-single", config, prefix + lm, single, batch=1, length=13, source=11),
        *(
            Case(f"{name}-{_ENDINGS[head]}", config, prefix + head, padded | {"num_labels": 3} | labels)
            for head in others
        ),
    ]


_LABELS = ("ForSequenceClassification", "ForTokenClassification")
_CAUSAL = ("ForCausalLM", *_LABELS)
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}

CASES = [
    *_family("bert", "BertConfig", "Bert", _BODY, _BODY | UNTIED | {"hidden_act": "gelu_new"}, "ForMaskedLM", *_LABELS),
    *_family(
        "roberta", "RobertaConfig", "Roberta", _BODY, _BODY | UNTIED | {"type_vocab_size": 1}, "ForMaskedLM", *_LABELS
    ),
    *_family("gpt2", "GPT2Config", "GPT2", _GPT2, _GPT2 | UNTIED | {"n_inner": 32}, "LMHeadModel", *_LABELS),
    *_family(
        "llama",
        "LlamaConfig",
        "Llama",
        _GROUPED | TIED | {"rope_parameters": _LLAMA3},
        _BODY | UNTIED | {"attention_bias": True, "mlp_bias": True, "rope_parameters": _YARN},
        *_CAUSAL,
    ),
    *_family("bloom", "BloomConfig", "Bloom", _BLOOM, _BLOOM | UNTIED | {"n_head": 6}, *_CAUSAL),
    *_family(
        "mistral",
        "MistralConfig",
        "Mistral",
        _GROUPED | TIED | {"sliding_window": 4},
        _MULTI_QUERY | UNTIED | {"sliding_window": None, "rope_parameters": _LINEAR},
        *_CAUSAL,
    ),
    *_family(
        "qwen2",
        "Qwen2Config",
        "Qwen2",
        {k: v for k, v in _GROUPED.items() if k != "head_dim"} | TIED,
        _MULTI_QUERY | UNTIED | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        *_CAUSAL,
    ),
    *_family(
        "qwen3",
        "Qwen3Config",
        "Qwen3",
        _GROUPED | TIED,
        _MULTI_QUERY | UNTIED | {"attention_bias": True, "max_position_embeddings": 8, "rope_parameters": _DYNAMIC},
        *_CAUSAL,
    ),
    *_family("gemma2", "Gemma2Config", "Gemma2", _GROUPED | _GEMMA, _MULTI_QUERY | _GEMMA | UNTIED, *_CAUSAL),
    *_family(
        "gemma3",
        "Gemma3TextConfig",
        "Gemma3",
        _GROUPED | _GEMMA | {"layer_types": ["sliding_attention", "full_attention"]},
        _MULTI_QUERY | _GEMMA | UNTIED | {"final_logit_softcapping": 2.0},
        "ForCausalLM",
    ),
    Case(
        "gemma3-sequence",
        "Gemma3TextConfig",
        "Gemma3TextForSequenceClassification",
        _GROUPED | _GEMMA | {"layer_types": ["sliding_attention", "full_attention"], "num_labels": 3},
    ),
    *_family(
        "t5",
        "T5Config",
        "T5",
        _T5,
        _T5 | UNTIED | {"feed_forward_proj": "gated-gelu", "num_decoder_layers": 2},
        "ForConditionalGeneration",
        *_LABELS,
    ),
    *_family(
        "bart",
        "BartConfig",
        "Bart",
        _BART,
        _BART | UNTIED | {"scale_embedding": True, "activation_function": "relu"},
        "ForConditionalGeneration",
        "ForSequenceClassification",
    ),
]
BY_NAME = {case.name: case for case in CASES}


def torch_model(case: Case) -> Any:
    """Their model with every weight drawn at random, norms and biases too, so that a missed one shows."""
    import torch
    import transformers

    config = getattr(transformers, case.config)(**case.values)
    config._attn_implementation = "eager"
    model = getattr(transformers, case.model)(config).eval()
    if case.model.startswith("Bart") and not config.tie_word_embeddings:
        # Untied, theirs also splits the input table in three; here both sides always share it.
        for side in (model.model.encoder, model.model.decoder):
            side.embed_tokens.weight = model.model.shared.weight
    draw = torch.Generator().manual_seed(sum(map(ord, case.name)))
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=draw)
            weight.copy_(0.3 * noise if weight.ndim > 1 else weight + 0.2 * noise)
    return model


@cache
def both(name: str) -> tuple[Any, Any, Any]:
    """(their model, our model, our parameters) of a case; ours is read from the folder that theirs wrote."""
    model = torch_model(BY_NAME[name])
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config, params, extras = load_pretrained(folder)
    # Untied, BERT and RoBERTa keep a second output bias that their forward pass never reads.
    assert set(extras.unread) <= {"cls.predictions.bias", "lm_head.bias"} and not extras.fresh
    return model, build(config), params


def _mask(rng: np.random.Generator, rows: int, length: int, *, left: bool) -> np.ndarray:
    """1 on real tokens: the first row is full, then rows are padded right and (if `left`) left in turn."""
    mask = np.ones((rows, length), np.int32)
    for i in range(1, rows):
        pad = int(rng.integers(1, length // 2 + 1))
        if left and i % 2 == 0:
            mask[i, :pad] = 0
        else:
            mask[i, length - pad :] = 0
    return mask


def _tokens(rng: np.random.Generator, mask: np.ndarray, eos: int | None = None) -> np.ndarray:
    ids = np.where(mask > 0, rng.integers(3, V, mask.shape), PAD)
    if eos is not None:  # exactly one end token per row, the last real one
        for row, real in zip(ids, mask, strict=True):
            row[np.flatnonzero(real)[-1]] = eos
    return ids.astype(np.int32)


@dataclass(frozen=True)
class Pair:
    """One batch in both forms; `real` [B, T] says which logits count."""

    ours: dict[str, np.ndarray]
    theirs: dict[str, np.ndarray]
    real: np.ndarray


def _labels(case: Case, rng: np.random.Generator, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if case.head == "sequence":
        return rng.integers(0, 3, ids.shape[0])
    if case.head == "token":
        return np.where(mask > 0, rng.integers(0, 3, ids.shape), -100)
    if case.head == "mlm":
        return np.where((mask > 0) & (rng.random(ids.shape) < 0.5), rng.integers(3, V, ids.shape), -100)
    if case.encodes:
        return np.where(mask > 0, rng.integers(3, V, ids.shape), -100)
    # A causal loss shifts: the first real token would be predicted from the padding on its left.
    behind = np.concatenate([np.zeros_like(mask[:, :1]), mask[:, :-1]], axis=1)
    return np.where((mask > 0) & (behind > 0), ids, -100)


def make_batch(case: Case, seed: int = 0) -> Pair:
    """Random tokens, padding on both sides where the model allows it, and labels."""
    rng = np.random.default_rng(seed)
    if case.encodes:
        return _make_two_sided(case, rng)
    # Their encoders classify by the first position, padding or not.
    first = case.head == "sequence" and case.model.startswith(("Bert", "Roberta"))
    mask = _mask(rng, case.batch, case.length, left=not first)
    ids = _tokens(rng, mask)
    labels = _labels(case, rng, ids, mask)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0).astype(np.int32)
    ours = {"tokens": ids, "segment_ids": mask, "labels": labels.astype(np.int32)}
    theirs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    # RoBERTa and BLOOM count real tokens themselves; T5 has only distances.
    if not case.model.startswith(("Roberta", "Bloom", "T5")):
        theirs["position_ids"] = positions
    if case.model.startswith("Bert"):
        ours["token_types"] = theirs["token_type_ids"] = rng.integers(0, 2, ids.shape).astype(np.int32)
    return Pair(ours, theirs, mask > 0)


def _make_two_sided(case: Case, rng: np.random.Generator) -> Pair:
    source_mask = _mask(rng, case.batch, case.source, left=True)
    inputs = _tokens(rng, source_mask, eos=2)
    start = 2 if case.model.startswith("Bart") else PAD
    if case.head == "sequence":  # their classes shift the inputs themselves
        mask = np.ones_like(source_mask)
        ids = np.concatenate([np.full_like(inputs[:, :1], start), inputs[:, :-1]], axis=1)
    else:
        mask = _mask(rng, case.batch, case.length, left=False)
        ids = _tokens(rng, mask)
        ids[:, 0] = start
    labels = _labels(case, rng, ids, mask)
    # BART's positions count padding too.
    plain = np.broadcast_to(np.arange(inputs.shape[1], dtype=np.int32), inputs.shape)
    ours = {"inputs": inputs, "input_segment_ids": source_mask, "input_positions": plain}
    ours |= {"tokens": ids, "segment_ids": mask, "labels": labels.astype(np.int32)}
    theirs = {"input_ids": inputs, "attention_mask": source_mask, "labels": labels}
    if case.head != "sequence":
        theirs |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
    return Pair(ours, theirs, mask > 0)


def run_torch(model: Any, batch: Mapping[str, np.ndarray], **wanted: bool) -> Any:
    """Their forward pass; gradients of the loss are left in the weights."""
    import torch

    model.zero_grad()
    out = model(**{name: torch.tensor(value).long() for name, value in batch.items()}, **wanted)
    out.loss.backward()
    return out


# Small programs that run once: their time is compile time, and machine code need not be fast.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@partial(quick_jit, static_argnums=0)
def _step(model: Any, params: Any, batch: dict[str, jax.Array]) -> Any:
    labels, batch = batch["labels"], {name: value for name, value in batch.items() if name != "labels"}
    head = model.config.head

    def loss_fn(params: Any) -> Any:
        out = model.apply(params, batch)
        if head in ("sequence", "token"):
            logits = model.classify(params, out, batch)
            on = (labels >= 0).astype(jnp.float32)
            logp = jax.nn.log_softmax(logits)
            picked = jnp.take_along_axis(logp, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
            return -jnp.sum(picked * on) / jnp.sum(on), logits
        targets = labels
        if head == "lm" and model.config.kind == "decoder":  # theirs shift inside
            targets = jnp.concatenate([labels[:, 1:], jnp.full_like(labels[:, :1], -100)], axis=1)
        on = (targets >= 0).astype(jnp.float32)
        features, weight, bias, cap = model.projection(params, out.hidden)
        sums = cross_entropy(features, weight, jnp.maximum(targets, 0), on, bias=bias, cap=cap, chunk=4)
        return sums[0] / jnp.sum(on), model.logits(params, out.hidden)

    (loss, logits), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    return loss, logits, grads


def run_ours(model: Any, params: Any, batch: Mapping[str, np.ndarray]) -> Any:
    """(loss, logits, gradients) of our model."""
    return _step(model, params, {name: jnp.asarray(value) for name, value in batch.items()})


@dataclass(frozen=True)
class Arrays:
    """Named arrays that look like a folder of tensors."""

    values: dict[str, np.ndarray]
    folder: Path = Path("gradients")

    @property
    def names(self) -> list[str]:
        return sorted(self.values)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.values[name].shape

    def dtype(self, name: str) -> np.dtype:
        return self.values[name].dtype

    def read(self, name: str) -> np.ndarray:
        return self.values[name]


def torch_gradients(model: Any, ours: Any) -> dict[str, np.ndarray]:
    """Their gradients under our paths: the table of weights serves gradients as well."""
    grads = {
        n: np.zeros(w.shape, np.float32) if w.grad is None else w.grad.numpy() for n, w in model.named_parameters()
    }
    return tree.paths(read_params(ours.config, Arrays(grads))[0])
