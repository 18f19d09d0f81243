"""Other people's checkpoints, read and written: Hugging Face folders, llama2.c files, model cards."""

from research.interop.card import Card, Data
from research.interop.hf import Extras, Pretrained, load_pretrained, save_pretrained
from research.interop.hf_config import config_from_hf, config_to_hf

__all__ = [
    "Card",
    "Data",
    "Extras",
    "Pretrained",
    "config_from_hf",
    "config_to_hf",
    "load_pretrained",
    "save_pretrained",
]
