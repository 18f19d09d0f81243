"""Decoding: logits to tokens, tokens to text."""

from research.decoding.beam import beam_search
from research.decoding.generate import generate, prepare
from research.decoding.result import Generation, Piece
from research.decoding.sample import Sampling, side_by_side
from research.decoding.speculative import speculate

__all__ = ["Generation", "Piece", "Sampling", "beam_search", "generate", "prepare", "side_by_side", "speculate"]
