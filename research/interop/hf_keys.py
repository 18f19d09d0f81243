"""config.json read key by key: every key is used, checked, or known to change no computation; others are refused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REQUIRED: Any = object()


def _words(text: str) -> list[str]:
    return text.split()


# Bookkeeping, initialisation, training-only rates and switches of how, not what, transformers computes.
_NEUTRAL = _words("""
_attn_implementation _attn_implementation_autoset _name_or_path _num_labels
architectures auto_map cache_implementation chunk_size_feed_forward classif_dropout classifier_dropout
decoder_layerdrop dtype encoder_layerdrop finetuning_task gradient_checkpointing hf_revision id2label
initializer_factor initializer_range init_std label2id language max_sequence_length model_max_length model_type
num_labels output_attentions output_hidden_states output_past prefix pretraining_tp problem_type return_dict
sep_token_id mask_token_id unk_token_id slow_but_exact task_specific_params tokenizer_class torch_dtype
transformers_version use_cache use_return_dict classification_task summary_activation summary_first_dropout
summary_proj_to_labels summary_type summary_use_proj activation_dropout
""")
# Settings of text generation that older files keep in config.json; they belong to generation_config.json.
_GENERATION = _words("""
bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
exponential_decay_length_penalty force_bos_token_to_be_generated forced_bos_token_id forced_eos_token_id
length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
output_scores remove_invalid_values repetition_penalty return_dict_in_generate suppress_tokens temperature top_k
top_p typical_p
""")
NEUTRAL = frozenset((*_NEUTRAL, *_GENERATION))

# Switches that every family shares: computed here only in this position.
OFF: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "tie_encoder_decoder": (False,),
    "torchscript": (False,),
}


class Reader:
    """A config.json that remembers what was read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)
        self.seen: set[str] = set()

    def get(self, key: str, default: Any = REQUIRED, *, also: Sequence[str] = ()) -> Any:
        """The value under `key` or one of its older names, else the default; null counts as absent."""
        self.seen.update((key, *also))
        for name in (key, *also):
            if self.values.get(name) is not None:
                return self.values[name]
        if default is REQUIRED:
            raise ValueError(f"config.json has no {key!r}; it has {sorted(self.values)}")
        return default

    def only(self, key: str, *allowed: Any) -> None:
        """Raises ValueError unless the key is absent or has one of the values that are computed here."""
        self.seen.add(key)
        if key in self.values and self.values[key] not in allowed:
            raise ValueError(f"config.json: {key} = {self.values[key]!r} is not supported; expected {_any_of(allowed)}")

    def finish(self, ignore: Sequence[str] = ()) -> None:
        """Raises ValueError for keys that nobody read and that are not known to be neutral.

        A switch that is off, or null, is taken as absent: files carry many of those from other models.
        """
        left = sorted(
            key
            for key, value in self.values.items()
            if key not in self.seen and key not in NEUTRAL and key not in ignore and value not in (None, False)
        )
        if left:
            given = {key: self.values[key] for key in left}
            raise ValueError(
                f"config.json has settings unknown for model_type {self.values.get('model_type')!r}: {given}; "
                f"if they change no computation, pass ignore={left}"
            )


def _any_of(allowed: Sequence[Any]) -> str:
    return " or ".join(repr(value) for value in allowed)


@dataclass(frozen=True)
class Key:
    """One field of ModelConfig and one key of config.json, with how each is made from the other."""

    ours: str
    theirs: str
    default: Any = REQUIRED
    also: tuple[str, ...] = ()
    read: Callable[[Any], Any] = lambda value: value
    write: Callable[[Any], Any] = lambda value: value


_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


def read_activation(name: str) -> str:
    """Our name of an activation of theirs."""
    if name not in _ACTIVATIONS:
        raise ValueError(f"config.json: the activation {name!r} is not supported; have {sorted(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def activation(theirs: str, default: str, tanh: str = "gelu_new", *, also: tuple[str, ...] = ()) -> Key:
    """The key of the feed-forward activation; `tanh` is how the family spells the tanh form of GELU."""
    return Key("activation", theirs, default, also, read_activation, lambda ours: {"gelu_tanh": tanh}.get(ours, ours))


def identifier(name: str, default: int | None) -> Key:
    """The key of a special token; null is -1 here, and of a list of end tokens the first is the model's own."""

    def read(value: Any) -> int:
        return int(value[0] if isinstance(value, list) else value)

    return Key(
        f"{name}_id",
        "decoder_start_token_id" if name == "decoder_start" else f"{name}_token_id",
        -1 if default is None else default,
        (),
        read,
        lambda ours: None if ours < 0 else ours,
    )


def identifiers(pad: int | None, bos: int | None, eos: int | None) -> tuple[Key, ...]:
    """The keys of padding, begin and end, with the family's defaults."""
    return identifier("pad", pad), identifier("bos", bos), identifier("eos", eos)


def cap(ours: str, theirs: str, default: float | None) -> Key:
    """A soft cap: null there is 0 here."""
    return Key(ours, theirs, default or 0.0, (), float, lambda value: value or None)
