"""Qwen3: Qwen2 with normed query and key heads instead of biases."""

from research.interop.families import llama, qwen2
from research.interop.family import Family, decoder_classes
from research.interop.hf_keys import Key, identifiers

_SHARED = tuple(key for key in llama.keys(151_936, False, llama.SILU) if key.ours != "head_dim")
_FIXED = {name: value for name, value in llama.FIXED.items() if not name.startswith("attention")}

FAMILY = Family(
    model_type="qwen3",
    classes=decoder_classes("Qwen3"),
    rows=llama.rows,
    keys=(*_SHARED, Key("head_dim", "head_dim", 128), *llama.BIASES, *identifiers(None, None, None)),
    fixed=_FIXED | {"qk_norm": True},
    read=qwen2.read,
    write=qwen2.write,
    only={"use_mrope": (False,)},
    prefix=llama.BASE,
    copies=llama.copies,
    harmless=llama.HARMLESS,
    surplus=llama.surplus,
)
