"""A small base model: decoder-only model, LLaMA style, that predicts the next token.

    python -m experiments.base_models --config=configs/base_decoder.py          # 2 CPU cores, at most 15 minutes
    python -m experiments.base_models --config=configs/base_decoder.py:gpu      # 100 to 250 million parameters
    python -m experiments.base_models --config=configs/base_decoder.py:tiny     # seconds: to see that it runs

Text: the Python documentation and the standard library's source. See
*LLaMA: Open and Efficient Foundation Language Models*, Touvron et al., https://arxiv.org/abs/2302.13971.
"""

from ml_collections import ConfigDict

from configs.base_model import base_config


def get_config(arg: str = "") -> ConfigDict:
    """The settings of one base model; see `base_config` for the arguments."""
    return base_config(
        "base_decoder",
        arg,
        preset="llama-7b",
        objective="causal",
        model={"d_model": 192, "n_layers": 4, "n_heads": 4, "head_dim": 48, "d_ff": 512, "tied": True},
        learning_rate=2e-3,
    )
