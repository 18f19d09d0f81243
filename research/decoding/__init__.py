"""Decoding: logits to tokens, tokens to text."""

from research.decoding.generate import generate, prepare
from research.decoding.result import Generation, Piece
from research.decoding.sample import Sampling

__all__ = ["Generation", "Piece", "Sampling", "generate", "prepare"]
