"""One file per family; `FAMILIES` by `model_type`."""

from research.interop.families import (
    bart,
    bert,
    bloom,
    gemma2,
    gemma3_text,
    gpt2,
    llama,
    mistral,
    qwen2,
    qwen3,
    roberta,
    t5,
)

_MODULES = (bart, bert, bloom, gemma2, gemma3_text, gpt2, llama, mistral, qwen2, qwen3, roberta, t5)
FAMILIES = {module.FAMILY.model_type: module.FAMILY for module in _MODULES}
