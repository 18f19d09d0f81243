"""Tokenizers, sources, templates, packing, corruption: from text to batches of numpy arrays, without jax.

Front doors: `load_tokenizer`, `train_sentencepiece`, `build_source`, `Batches`, `check_batch`, `render`.
"""

from .build import build_rows, build_source
from .check_batch import check_batch
from .corpus import TokenCorpus
from .sentencepiece_tokenizer import train_sentencepiece
from .show import render
from .sources import Batches, Prefetch, Stream, one_pass
from .tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "Batches",
    "Prefetch",
    "Stream",
    "TokenCorpus",
    "Tokenizer",
    "build_rows",
    "build_source",
    "check_batch",
    "load_tokenizer",
    "one_pass",
    "render",
    "train_sentencepiece",
]
