"""Models: one config, one set of layers, three architecture families."""

from research.models.config import ModelConfig
from research.models.model import Model, Output, build
from research.models.presets import PRESETS, preset

__all__ = ["PRESETS", "Model", "ModelConfig", "Output", "build", "preset"]
