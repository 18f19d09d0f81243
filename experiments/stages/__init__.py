"""The stages of a model's life, in order; later work adds its own here."""

from experiments.stages import (
    answers,
    card,
    compression,
    documents,
    dpo,
    forgetting,
    memory,
    page,
    pairs,
    policies,
    ppo,
    pretrain,
    quantize,
    rag,
    reward,
    samples,
    shots,
    smaller,
    tokenizer,
    tune,
)
from experiments.stages.stage import Done, Interrupted, Stage, run_all

STAGES: tuple[Stage, ...] = (
    documents.STAGE,
    tokenizer.STAGE,
    pretrain.STAGE,
    compression.STAGE,
    tune.FULL,
    tune.LORA,
    tune.PROMPT,
    answers.STAGE,
    forgetting.STAGE,
    samples.STAGE,
    shots.STAGE,
    card.STAGE,
    quantize.STAGE,
    smaller.PRUNE,
    smaller.DISTIL,
    memory.STAGE,
    pairs.STAGE,
    reward.STAGE,
    ppo.STAGE,
    dpo.STAGE,
    policies.STAGE,
    rag.STAGE,
    page.STAGE,
)

__all__ = ["STAGES", "Done", "Interrupted", "Stage", "run_all"]
