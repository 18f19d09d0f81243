"""Losses as functions of arrays: no model, no weights, no batch."""

from research.objectives.preference import pairwise_log_sigmoid

__all__ = ["pairwise_log_sigmoid"]
