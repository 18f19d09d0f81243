"""Precision as a value: in what type weights are stored, products are computed, and logits come out."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

_TYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16, "f16": jnp.float16, "float32": jnp.float32}
_TYPES |= {"bfloat16": jnp.bfloat16, "float16": jnp.float16}
_PRESETS = {"f32": ("f32", "f32", "f32")}
_PRESETS |= {"bf16": ("f32", "bf16", "f32"), "pure_bf16": ("bf16", "bf16", "f32")}
_PRESETS |= {"f16": ("f32", "f16", "f32"), "pure_f16": ("f16", "f16", "f32")}
_FIELDS = ("storage", "compute", "output")


def dtype(name: str) -> np.dtype:
    """The numpy dtype of a short name.

    Raises:
      ValueError: an unknown name; the message lists the known ones.
    """
    if name not in _TYPES:
        raise ValueError(f"unknown precision {name!r}; have {sorted(_TYPES)}")
    return np.dtype(_TYPES[name])


@dataclass(frozen=True)
class Policy:
    """Types of stored weights, of activations and products, and of logits.

    Softmax, norms, RoPE and the loss are always computed in float32, whatever `compute` says. Training with float16
    products takes a loss scale: `research.training.loss_scale`.
    """

    storage: np.dtype = np.dtype(jnp.float32)
    compute: np.dtype = np.dtype(jnp.float32)
    output: np.dtype = np.dtype(jnp.float32)

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """`f32`, `bf16` and `f16` (f32 masters), `pure_bf16`, `pure_f16`, or `storage=f32,compute=bf16,output=f32`.

        Raises:
          ValueError: an unknown policy, field or type; the message lists the known ones.
        """
        if "=" not in text:
            if text not in _PRESETS:
                raise ValueError(
                    f"unknown precision policy {text!r}; have {sorted(_PRESETS)} or 'storage=..,compute=..'"
                )
            return cls(*(dtype(name) for name in _PRESETS[text]))
        fields = {name: value for name, _, value in (part.partition("=") for part in text.split(","))}
        if unknown := sorted(set(fields) - set(_FIELDS)):
            raise ValueError(f"unknown precision fields {unknown}; have {list(_FIELDS)}")
        return cls(**{name: dtype(value) for name, value in fields.items()})
