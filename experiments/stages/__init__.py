"""The stages of a model's life, in order; later work adds its own here."""

from experiments.stages import (
    answers,
    compression,
    documents,
    page,
    pretrain,
    samples,
    tokenizer,
    tune,
)
from experiments.stages.stage import Done, Interrupted, Stage, run_all

STAGES: tuple[Stage, ...] = (
    documents.STAGE,
    tokenizer.STAGE,
    pretrain.STAGE,
    compression.STAGE,
    tune.STAGE,
    answers.STAGE,
    samples.STAGE,
    page.STAGE,
)

__all__ = ["STAGES", "Done", "Interrupted", "Stage", "run_all"]
